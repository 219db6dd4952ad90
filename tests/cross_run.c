/* Runs calls that tests/cross_run.py has written down, and writes what comes out: standard input to standard output. */

#include "../snn_ext/ops/c/cpu.c"

#include <stdio.h>

typedef struct {
    int64_t kind, count, buffers; /* of the four functions, its neurons, tensors in memory */
} Head;

typedef struct {
    int64_t offset, bytes, out; /* of its pointer in the call; whether it is written */
} Buffer;

enum { MOST = 64 };

static void *read_all(size_t bytes) {
    void *memory = malloc(bytes + 1);
    if (!memory || fread(memory, 1, bytes, stdin) != bytes) exit(3);
    return memory;
}

int main(void) {
    static const Run run[] = {snn_ext_forward_f32, snn_ext_forward_f64, snn_ext_backward_f32, snn_ext_backward_f64};
    Head head;
    while (fread(&head, sizeof head, 1, stdin) == 1) {
        Call *call = read_all(sizeof(Call));
        Buffer buffers[MOST];
        void *memory[MOST];
        for (int64_t i = 0; i < head.buffers; i++) {
            if (fread(&buffers[i], sizeof(Buffer), 1, stdin) != 1) return 3;
            memory[i] = read_all((size_t)buffers[i].bytes);
            memcpy((char *)call + buffers[i].offset, &memory[i], sizeof(void *));
        }
        if (run[head.kind](call, 0, head.count)) return 4;
        for (int64_t i = 0; i < head.buffers; i++) {
            if (buffers[i].out) fwrite(memory[i], 1, (size_t)buffers[i].bytes, stdout);
            free(memory[i]);
        }
        free(call);
    }
    return 0;
}

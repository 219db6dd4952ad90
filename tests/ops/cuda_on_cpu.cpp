/* The CUDA text, and a launcher for it; KERNEL names the file that holds the text. */
#include "cuda_on_cpu.h"
#include KERNEL

static const Call *current;
static int current_backward;

static void thread() {
    if (current_backward)
        snn_ext_backward(*current);
    else
        snn_ext_forward(*current);
    finished[threadIdx.x] = true;
}

/* The order in which threads take their turns must not matter; `reversed` turns it round. */
int launch(int backward, const void *call, unsigned blocks, unsigned threads, int reversed) {
    char *stacks = (char *)malloc((size_t)threads * STACK);
    if (!stacks || threads > MOST) return 1;
    current = (const Call *)call;
    current_backward = backward;
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        for (unsigned i = 0; i < threads; i++) {
            getcontext(&contexts[i]);
            contexts[i].uc_stack.ss_sp = stacks + (size_t)i * STACK;
            contexts[i].uc_stack.ss_size = STACK;
            contexts[i].uc_link = &scheduler;
            makecontext(&contexts[i], thread, 0);
            finished[i] = false;
        }
        for (bool any = true; any;) {
            any = false;
            for (unsigned i = 0; i < threads; i++) {
                threadIdx.x = reversed ? threads - 1 - i : i;
                if (finished[threadIdx.x]) continue;
                swapcontext(&scheduler, &contexts[threadIdx.x]);
                any = any || !finished[threadIdx.x];
            }
        }
    }
    free(stacks);
    return 0;
}

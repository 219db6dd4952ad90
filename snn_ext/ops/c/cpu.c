/* The CPU implementation: plain C, without torch or Python.
 *
 * snn_ext_forward_f32 and its three siblings compute neurons [begin, end) of a call, which snn_ext/ops/native.py fills
 * in.  Calls on disjoint ranges that begin at multiples of `block` may run at the same time.  They return 0, 1 if
 * memory ran out, or 2 if the call holds a number that nothing here is known by, and then have done nothing.
 *
 * One text for x86-64 and ARM, on Linux, macOS and Windows (gcc or clang): tests/cross_compile.py. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
EXPORT void *PyInit__native(void) { return NULL; } /* which setuptools tells the linker to export */
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("vect-cost-model=dynamic") /* as clang has it anyway */
#endif

/* On Linux the loader picks the widest instructions that the machine has (gcc). */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(SNN_EXT_PLAIN)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES __attribute__((noinline))
#endif

#if defined(__GNUC__)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE static inline
#endif
#define INLINE ALWAYS_INLINE
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define FUNCTION static __attribute__((noinline))

#include "call.h"

enum { LINE = 64 };             /* bytes of a line of the cache */
enum { NO_MEMORY = 1, UNKNOWN }; /* what goes wrong */

/* Copy a row past the cache: rows lie so far apart that a processor would wait for each line before writing to it.
 * By instructions that every x86-64 has; elsewhere into the cache. */
#if defined(__x86_64__)
#include <emmintrin.h>
#define FENCE _mm_sfence()
FUNCTION void copy_out(void *to, const void *from, size_t bytes) {
    char *out = to;
    const char *in = from;
    size_t head = -(uintptr_t)out & 15;
    if (head > bytes) head = bytes;
    memcpy(out, in, head);
    for (; head + 16 <= bytes; head += 16)
        _mm_stream_si128((__m128i *)(out + head), _mm_loadu_si128((const __m128i *)(in + head)));
    memcpy(out + head, in + head, bytes - head);
}
#else
#define FENCE (void)0
FUNCTION void copy_out(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }
#endif

#define REAL float
#define BITS uint32_t
#define NAME(f) f##_f32
#define FABS fabsf
#define ATAN atanf
#define EXP exp_f32
#define TANH tanh_f32
#define RCBRT rcbrt_f32
#define ERF erf_f32
#define OWN_ERF
#define OWN_EXP
#define ROUNDER 12582912.0f /* 1.5 * 2^23 */
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define EXP_LIMIT 87
#define EXP_TERMS 6
#define EXP_SHIFT 23
#define EXP_BIAS 127u
#define RCBRT_STEPS 3
#define SPECIALISED 1
#include "lanes.h"
#undef REAL
#undef BITS
#undef NAME
#undef FABS
#undef ATAN
#undef EXP
#undef TANH
#undef RCBRT
#undef ERF
#undef OWN_ERF
#undef OWN_EXP
#undef ROUNDER
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_LIMIT
#undef EXP_TERMS
#undef EXP_SHIFT
#undef EXP_BIAS
#undef RCBRT_STEPS
#undef SPECIALISED

#define REAL double
#define BITS uint64_t
#define NAME(f) f##_f64
#define FABS fabs
#define ATAN atan
#define EXP exp_f64
#define TANH tanh_f64
#define RCBRT rcbrt_f64
#define ERF erf_f64
#define ROUNDER 6755399441055744.0 /* 1.5 * 2^52 */
#define LN2_HIGH 0.693147180369123816490
#define LN2_LOW 1.90821492927058770002e-10
#define EXP_LIMIT 700
#define EXP_TERMS 13
#define EXP_SHIFT 52
#define EXP_BIAS 1023u
#define RCBRT_STEPS 5
#define SPECIALISED 0 /* double is for checking */
#include "lanes.h"

/* Share a call between threads, each of which takes the next `chunk` neurons, a multiple of the block, until none are
 * left; returns when all have ended, whatever signals come.  `parallel` is GOMP_parallel of a runtime that the process
 * has anyway, which runs a function in a number of threads; where it is NULL, threads are started for this call alone. */
#if defined(_WIN32)
#include <windows.h>
typedef HANDLE Thread;
#else
#include <pthread.h>
typedef pthread_t Thread;
#endif

typedef int (*Run)(const Call *, int64_t, int64_t);
typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);
enum { MOST_THREADS = 256 };

typedef struct {
    Run run;
    const Call *call;
    int64_t next, chunk;
    int status;
} Shared;

static void take(void *shared) {
    Shared *s = shared;
    for (;;) {
        int64_t count = s->call->count, begin = __atomic_fetch_add(&s->next, s->chunk, __ATOMIC_RELAXED);
        if (begin >= count) return;
        int status = s->run(s->call, begin, begin + s->chunk < count ? begin + s->chunk : count);
        if (status) __atomic_store_n(&s->status, status, __ATOMIC_RELAXED);
    }
}

#if defined(_WIN32)
static DWORD WINAPI help(void *shared) { return take(shared), 0; }
static int start(Thread *thread, Shared *s) { return (*thread = CreateThread(NULL, 0, help, s, 0, NULL)) != NULL; }
static void join(Thread thread) { WaitForSingleObject(thread, INFINITE), CloseHandle(thread); }
#else
static void *help(void *shared) { return take(shared), NULL; }
static int start(Thread *thread, Shared *s) { return pthread_create(thread, NULL, help, s) == 0; }
static void join(Thread thread) { pthread_join(thread, NULL); }
#endif

static void take_in_threads(Shared *s, unsigned threads) {
    Thread helpers[MOST_THREADS];
    unsigned started = 0;
    while (started + 1 < threads && started < MOST_THREADS && start(&helpers[started], s)) started++;
    take(s); /* with those that could be started, be it none */
    while (started > 0) join(helpers[--started]);
}

EXPORT int snn_ext_share(Parallel parallel, Run run, const Call *c, int64_t chunk, unsigned threads) {
    Shared shared = {run, c, 0, chunk, 0};
    if (parallel)
        parallel(take, &shared, threads, 0);
    else
        take_in_threads(&shared, threads);
    return shared.status;
}

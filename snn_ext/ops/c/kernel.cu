/* The CUDA implementation: one thread for each neuron, compiled by NVRTC through CuPy (snn_ext/ops/cupy.py).
 *
 * Who compiles it defines KIND_NEURON, KIND_RESET and KIND_MPR, which are constants to the compiler, DOUBLE (0 or 1)
 * for the precision of the state, and HALF for that of the sequences: 0 that of the state, 1 float16, 2 bfloat16
 * (converted by their bits: memory is what takes the time).  The potentials of one segment of time are in the thread's
 * own memory, those at the beginnings of segments in c.starts. */

#define SEGMENT 32
#define THREADS 256

#if DOUBLE
#define REAL double
#define FABS fabs
#define ATAN atan
#define EXP exp
#define TANH tanh
#define ERF erf
#define RCBRT rcbrt
#else
#define REAL float
#define FABS fabsf
#define ATAN atanf
#define EXP expf
#define TANH tanhf
#define ERF erff
#define RCBRT rcbrtf
#endif
#define NAME(f) neuron_##f
#define INLINE static __device__ __forceinline__
#define FUNCTION static __device__

#include "call.h"
#include "dynamics.h"

/* ---- sequences in memory ---- */

#if HALF
typedef unsigned short Stored;

union Bits {
    float value;
    unsigned int bits;
};

INLINE REAL load(const void *memory, long long i) {
    unsigned int half = ((const Stored *)memory)[i];
    Bits wide;
#if HALF == 2
    wide.bits = half << 16;
#else
    unsigned int exponent = half >> 10 & 31, fraction = half & 1023;
    wide.bits = exponent == 31 ? 0x7f800000u | fraction << 13 : (exponent + 112) << 23 | fraction << 13;
    if (exponent == 0) wide.value = (float)fraction * 5.9604644775390625e-8f; /* 2^-24 */
    wide.bits |= (half & 0x8000u) << 16;
#endif
    return wide.value;
}

/* To the nearest, ties to even; NaN stays NaN. */
INLINE void store(void *memory, long long i, REAL value) {
    Bits wide;
    unsigned int sign, size, half;
    wide.value = value;
    sign = wide.bits >> 16 & 0x8000u;
    size = wide.bits & 0x7fffffffu;
#if HALF == 2
    half = size > 0x7f800000u ? 0x7fc0u : (size + 0x7fffu + (size >> 16 & 1)) >> 16;
#else
    if (size > 0x7f800000u) {
        half = 0x7e00u;
    } else if (size >= 0x477ff000u) { /* 65520 and more */
        half = 0x7c00u;
    } else if (size < 0x38800000u) { /* below 2^-14: in units of 2^-24, which adding one half aligns */
        wide.bits = size;
        wide.value += 0.5f;
        half = wide.bits - 0x3f000000u;
    } else {
        half = (size - 0x38000000u + 0xfffu + (size >> 13 & 1)) >> 13;
    }
#endif
    ((Stored *)memory)[i] = (Stored)(sign | half);
}
#else
INLINE REAL load(const void *memory, long long i) { return ((const REAL *)memory)[i]; }
INLINE void store(void *memory, long long i, REAL value) { ((REAL *)memory)[i] = value; }
#endif

INLINE REAL state(const void *memory, long long i) { return memory ? ((const REAL *)memory)[i] : 0; }

/* ---- one neuron ---- */

INLINE NAME(Mode) mode(const Call &c) {
    NAME(Mode) m = {KIND_NEURON, KIND_RESET, (int)c.activation, (int)c.surrogate, (int)c.spiking, (int)c.strict,
              (int)c.detach_reset, (int)c.reset_delay, KIND_MPR, 0, (REAL)c.scale, (REAL)c.v_reset, (REAL)c.power};
    return m;
}

INLINE REAL parameter(const Parameter &p, long long n) {
    return p.values ? ((const REAL *)p.values)[n / p.inner % p.middle] : 0;
}

INLINE NAME(Parameters) parameters(const Call &c, long long n) {
    NAME(Parameters) p = {parameter(c.parameters[0], n), parameter(c.parameters[1], n), parameter(c.parameters[2], n),
                    parameter(c.parameters[3], n), parameter(c.parameters[4], n)};
    return p;
}

INLINE void add(NAME(Parameters) *sum, NAME(Parameters) g) {
    sum->decay += g.decay;
    sum->gain += g.gain;
    sum->threshold += g.threshold;
    sum->a += g.a;
    sum->b += g.b;
}

INLINE NAME(Parameters) backward_neuron(const Call &c, NAME(Mode) m, long long n) {
    NAME(Parameters) p = parameters(c, n), sum = {0, 0, 0, 0, 0};
    REAL carried[SEGMENT], v0 = state(c.v0, n), v = NAME(start)(m, v0, p), gv = 0;
    long long last = (c.steps - 1) / SEGMENT;
    int within = m.surrogate == STRAIGHT_THROUGH && m.scale == 1; /* see dynamics.h */
    for (long long s = 0; s < last; s++) { /* the potential at the beginning of each segment */
        ((REAL *)c.starts)[s * c.count + n] = v;
        for (long long t = s * SEGMENT; t < (s + 1) * SEGMENT; t++) v = NAME(step)(m, load(c.x, t * c.count + n), v, p).next;
    }
    for (long long s = last; s >= 0; s--) {
        int length = s < last ? SEGMENT : (int)(c.steps - last * SEGMENT);
        if (s < last) v = ((const REAL *)c.starts)[s * c.count + n];
        for (int k = 0; k < length; k++) {
            carried[k] = v;
            if (k + 1 < length) v = NAME(step)(m, load(c.x, (s * SEGMENT + k) * c.count + n), v, p).next;
        }
        for (int k = length - 1; k >= 0; k--) {
            long long t = s * SEGMENT + k, i = t * c.count + n;
            REAL x = load(c.x, i), gs = state(c.gv_seq, i), activation = 1;
            NAME(Step) now = NAME(step)(m, x, carried[k], p);
            NAME(Gradients) g;
            if (t == c.steps - 1 && c.gv) gs = gs + state(c.gv, n);
            if (m.neuron == VSN && m.activation != IDENTITY) activation = NAME(activation_gradient)(m.activation, x * now.o);
            g = NAME(back)(m, now, x, p, NAME(slopes)(m, now.h, p, within), load(c.gy, i), state(c.gsent, n), activation, m.reset_delay ? gs : 0,
                     m.reset_delay ? 0 : gs, gv);
            store(c.gx, i, g.x);
            gv = g.v;
            add(&sum, g.p);
        }
    }
    if (m.reset_delay && !NAME(waits)(m) && !c.constant_start) {
        NAME(Parameters) own = {0, 0, 0, 0, 0};
        gv = NAME(start_backward)(m, gv, v0, p, NAME(slopes)(m, v0, p, within), &own);
        add(&sum, own);
    }
    if (c.gv0) ((REAL *)c.gv0)[n] = gv;
    return sum;
}

/* ---- kernels ---- */

extern "C" __global__ void snn_ext_forward(const Call c) {
    long long n = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= c.count) return;
    NAME(Mode) m = mode(c);
    NAME(Parameters) p = parameters(c, n);
    REAL v = NAME(start)(m, state(c.v0, n), p), seen = v, sent = 0;
    for (long long t = 0; t < c.steps; t++) {
        long long i = t * c.count + n;
        REAL x = load(c.x, i), y;
        NAME(Step) now = NAME(step)(m, x, v, p);
        y = NAME(emit)(m, x, now, p);
        store(c.y, i, m.neuron == VSN ? NAME(activation)(m.activation, y) : y);
        sent += NAME(sent)(m, now, p);
        v = now.next;
        seen = m.reset_delay && !NAME(waits)(m) ? now.h : v;
        if (c.v_seq) ((REAL *)c.v_seq)[i] = seen;
    }
    ((REAL *)c.v)[n] = seen;
    if (c.sent) ((REAL *)c.sent)[n] = sent;
}

extern "C" __global__ void snn_ext_backward(const Call c) {
    __shared__ double sums[THREADS];
    long long n = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    NAME(Parameters) sum = {0, 0, 0, 0, 0};
    if (n < c.count) sum = backward_neuron(c, mode(c), n);
    if (!c.parameter_grads) return;
    REAL own[PARAMETERS] = {sum.decay, sum.gain, sum.threshold, sum.a, sum.b};
    for (int k = 0; k < PARAMETERS; k++) {
        const Parameter &p = c.parameters[k];
        if (!p.gradient) continue;
        if (p.middle > 1) { /* one value for each neuron, which the caller sums */
            if (n < c.count) ((REAL *)p.gradient)[n] = own[k];
            continue;
        }
        sums[threadIdx.x] = own[k];
        __syncthreads();
        for (int half = blockDim.x / 2; half > 0; half /= 2) {
            if ((int)threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
            __syncthreads();
        }
        if (threadIdx.x == 0) ((double *)p.gradient)[blockIdx.x] = sums[0];
    }
}

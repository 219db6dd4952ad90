/* What a kernel is called with; snn_ext/ops/calls.py packs it, field by field, eight bytes each. */

/* Neuron n has the value values[(n / inner) % middle]; NULL if this neuron has no such parameter.  Its gradient:
 * with middle == 1 a double for each block, else one value for each neuron. */
typedef struct {
    const void *values;
    void *gradient;
    long long middle, inner;
} Parameter;

typedef struct {
    long long steps, count, block, segment; /* time steps, neurons, neurons a block, steps a segment */
    long long neuron, reset, activation, surrogate, spiking, strict, detach_reset, reset_delay, constant_start, mpr,
        parameter_grads;
    double scale, v_reset;
    const void *x, *v0;           /* [steps, count] and [count]; v0 may be NULL, for zero, and so may gv0 */
    void *y, *v, *v_seq;          /* forward; v_seq may be NULL */
    const void *gy, *gv, *gv_seq; /* backward; the last two may be NULL */
    void *gx, *gv0;
    Parameter parameters[5]; /* decay, gain, threshold, and those of the neuron */
    long long stream;        /* on the CPU: whether what goes out is too large to stay in the cache */
    void *starts;            /* backward on CUDA: memory for the potential at the beginning of each segment but the last */
    void *sent;              /* forward; [count], may be NULL: spikes sent by each neuron, over all steps */
    const void *gsent;       /* backward; its gradient, may be NULL */
    double power;            /* to which they are raised */
} Call;

/* Sums over spikes of several time steps, each step in memory of its own as a loop over time leaves it, and the gradients
 * of such sums: one call for all.  Included by cpu.c for float and for double. */

/* Neurons of a row from `first` on; those behind the last row of a tensor begin the next one. */
static inline REAL *NAME(row)(const Spikes *c, int64_t tensor, int64_t row, int64_t first) {
    if (row >= c->rows && tensor + 1 < c->tensors) tensor++, row -= c->rows;
    if (row >= c->rows) row = c->rows - 1;
    return (REAL *)c->memory[tensor] + row * c->neurons + first;
}

/* Add up neurons [begin, end) over rows and tensors. */
EXPORT CLONES int NAME(snn_ext_count)(const void *call, int64_t begin, int64_t end) {
    const Spikes *c = call;
    for (int64_t first = begin; first < end; first += COUNTED) {
        int64_t lanes = end - first < COUNTED ? end - first : COUNTED;
        double sums[COUNTED] = {0};
        for (int64_t k = 0; k < c->tensors; k++)
            for (int64_t r = 0; r < c->rows; r++) {
                const REAL *restrict s = NAME(row)(c, k, r, first);
                FETCH(NAME(row)(c, k, r + 2 * AHEAD, first));
                EACH sums[i] += s[i];
            }
        memcpy((double *)c->values + first, sums, (size_t)lanes * sizeof(double));
    }
    return 0;
}

/* Multiply rows [begin, end), those of all tensors one after the other, by what a spike of each neuron adds. */
EXPORT CLONES int NAME(snn_ext_push)(const void *call, int64_t begin, int64_t end) {
    const Spikes *c = call;
    const REAL *restrict slope = c->values;
    int64_t lanes = c->neurons;
    for (int64_t n = begin; n < end; n++) {
        int64_t k = n / c->rows, r = n % c->rows;
        const REAL *restrict s = NAME(row)(c, k, r, 0);
        REAL *restrict g = (REAL *)c->memory[c->tensors + k] + r * lanes;
        FETCH(NAME(row)(c, k, r + AHEAD, 0));
        EACH g[i] = s[i] * slope[i];
    }
    return 0;
}

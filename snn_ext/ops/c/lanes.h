/* The dynamics over a block of neurons ("lanes") and all time steps, on the CPU, in one precision.  Included
 * by cpu.c for float and for double.
 *
 * Each loop over lanes does one thing to rows that stay in the cache, so that compilers vectorise it.  The
 * backward pass recomputes: it carries the potentials through the whole sequence once, keeping one row for each
 * segment of time, then goes back segment by segment, with the potentials of a segment in memory. */

#include "elementary.h"
#include "dynamics.h"

#undef EACH
#define EACH INDEPENDENT for (int64_t i = 0; i < lanes; i++)

/* Bring a row into the cache while the AHEAD rows before it are computed (rows lie too far apart for the processor to
 * guess). */
#undef FETCH
#undef AHEAD
#define AHEAD 3
#if defined(__GNUC__)
#define FETCH(row)                                                                             \
    for (const char *from = (const char *)(row), *end = from + lanes * sizeof(REAL); from < end; from += 64) \
    __builtin_prefetch(from)
#else
#define FETCH(row) (void)(row)
#endif

/* Rows of scratch memory, each `block` long. */
typedef struct {
    REAL *p[PARAMETERS], *g[PARAMETERS];
    REAL *v, *fire, *burst, *distance, *activation, *last, *none, *out;
    REAL *starts, *charged, *carried; /* a row for each segment; a row for each step of a segment, twice */
} NAME(Scratch);

enum { NAME(ROWS) = 2 * PARAMETERS + 8 };

/* Returns what is to be freed. */
static void *NAME(allocate)(const Call *c, int backward, NAME(Scratch) *s) {
    int64_t segments = (c->steps + c->segment - 1) / c->segment;
    int64_t rows = NAME(ROWS) + (backward ? segments + 2 * c->segment : 0);
    char *memory = malloc((size_t)(rows * c->block) * sizeof(REAL) + LINE);
    if (!memory) return NULL;
    REAL *next = (REAL *)(memory + (LINE - (uintptr_t)memory % LINE)); /* no vector across two lines of the cache */
    for (int k = 0; k < PARAMETERS; k++, next += c->block) s->p[k] = next;
    for (int k = 0; k < PARAMETERS; k++, next += c->block) s->g[k] = next;
    REAL **rest[] = {&s->v, &s->fire, &s->burst, &s->distance, &s->activation, &s->last,
                     &s->none, &s->out, &s->starts};
    for (int k = 0; k < 9; k++, next += c->block) *rest[k] = next;
    s->charged = s->starts + (backward ? segments * c->block : 0);
    s->carried = s->charged + (backward ? c->segment * c->block : 0);
    memset(s->none, 0, (size_t)c->block * sizeof(REAL));
    return memory;
}

/* Spread a parameter over the lanes from `first` on: neuron n has the value (n / inner) % middle. */
static void NAME(spread)(REAL *row, const Parameter *p, int64_t first, int64_t lanes) {
    const REAL *values = p->values;
    int64_t index = first / p->inner % p->middle, left = p->inner - first % p->inner;
    for (int64_t i = 0, n; i < lanes; i += n) {
        if (p->inner == 1) { /* one after the other */
            n = p->middle - index < lanes - i ? p->middle - index : lanes - i;
            memcpy(row + i, values + index, (size_t)n * sizeof(REAL));
            index = 0;
        } else { /* the same for some */
            n = left < lanes - i ? left : lanes - i;
            for (int64_t j = 0; j < n; j++) row[i + j] = values[index];
            left = p->inner;
            if (++index == p->middle) index = 0;
        }
    }
}

/* Make the rows of parameters: those with one value for all at the first block, the others at each. */
static void NAME(prepare)(const Call *c, NAME(Scratch) *s, int64_t first, int64_t lanes, int begins) {
    for (int k = 0; k < PARAMETERS; k++) {
        const Parameter *p = &c->parameters[k];
        if (!p->values) continue;
        if (p->middle > 1)
            NAME(spread)(s->p[k], p, first, lanes);
        else if (begins)
            for (int64_t i = 0; i < c->block; i++) s->p[k][i] = *(const REAL *)p->values;
    }
}

#define AT(i) (NAME(Parameters)){s->p[0][i], s->p[1][i], s->p[2][i], s->p[3][i], s->p[4][i]}
#define MINE(i) (usual ? all : AT(i))

/* The activation of a VSN over what passed the gate, or its derivative. */
CLONES static void NAME(activate)(const Call *c, REAL *restrict z, int64_t lanes) {
    switch (c->activation) {
    case RELU: EACH z[i] = NAME(activation)(RELU, z[i]); break;
    case TANH_: EACH z[i] = NAME(activation)(TANH_, z[i]); break;
    case GELU: EACH z[i] = NAME(activation)(GELU, z[i]); break;
    }
}

CLONES static void NAME(activate_backward)(const Call *c, REAL *restrict z, int64_t lanes) {
    switch (c->activation) {
    case RELU: EACH z[i] = NAME(activation_gradient)(RELU, z[i]); break;
    case TANH_: EACH z[i] = NAME(activation_gradient)(TANH_, z[i]); break;
    case GELU: EACH z[i] = NAME(activation_gradient)(GELU, z[i]); break;
    }
}

ALWAYS_INLINE void NAME(forward_lanes)(NAME(Mode) m, int usual, const Call *c, NAME(Scratch) *s, int64_t first, int64_t lanes) {
    const NAME(Parameters) all = AT(0);
    REAL *restrict v = s->v, *restrict last = (REAL *)c->v + first;
    const REAL *restrict v0 = c->v0 ? (const REAL *)c->v0 + first : s->none;
    REAL *restrict sent = c->sent ? (REAL *)c->sent + first : s->out;
    EACH v[i] = NAME(start)(m, v0[i], MINE(i));
    if (c->sent) memset(sent, 0, (size_t)lanes * sizeof(REAL));
    for (int64_t t = 0; t < c->steps; t++) {
        const REAL *restrict x = (const REAL *)c->x + t * c->count + first;
        REAL *out = (REAL *)c->y + t * c->count + first;
        REAL *restrict y = c->stream ? s->out : out;
        REAL *restrict state = c->v_seq ? (REAL *)c->v_seq + t * c->count + first : last;
        int64_t next = t + AHEAD;
        FETCH(next < c->steps ? x + AHEAD * c->count : (const REAL *)c->x + (next - c->steps) * c->count + first + lanes);
        if (c->sent) EACH sent[i] += NAME(sent)(m, NAME(step)(m, x[i], v[i], MINE(i)), MINE(i));
        if (t == c->steps - 1 || (!usual && c->v_seq)) EACH {
            NAME(Step) now = NAME(step)(m, x[i], v[i], MINE(i));
            y[i] = NAME(emit)(m, x[i], now, MINE(i));
            state[i] = m.reset_delay && !NAME(waits)(m) ? now.h : now.next;
            v[i] = now.next;
        } else EACH {
            NAME(Step) now = NAME(step)(m, x[i], v[i], MINE(i));
            y[i] = NAME(emit)(m, x[i], now, MINE(i));
            v[i] = now.next;
        }
        if (m.neuron == VSN && !usual) NAME(activate)(c, y, lanes);
        if (c->stream) copy_out(out, y, lanes * sizeof(REAL));
        if (c->v_seq && t == c->steps - 1) memcpy(last, state, (size_t)lanes * sizeof(REAL));
    }
}

/* The slopes of firing at the potentials `h`, into the rows fire, burst and distance. */
CLONES static void NAME(slope)(NAME(Mode) m, NAME(Scratch) *s, const REAL *restrict h, int64_t lanes) {
    REAL *restrict fire = s->fire, *restrict burst = s->burst, *restrict distance = s->distance;
#define SLOPES(shape, within)                                                                  \
    EACH {                                                                                     \
        m.surrogate = shape;                                                                   \
        NAME(Slopes) at = NAME(slopes)(m, h[i], AT(i), within);                                \
        fire[i] = at.fire;                                                                     \
        if (m.neuron == LIFB) burst[i] = at.burst;                                             \
        if (m.neuron == MPR) distance[i] = at.distance;                                        \
    }
#define CASE(shape)                                                                            \
    case shape:                                                                                \
        SLOPES(shape, 0);                                                                      \
        break;
#define EVERY                                                                                  \
    switch (m.surrogate) {                                                                     \
        CASE(ATAN_)                                                                            \
        CASE(FAST_SIGMOID)                                                                     \
        CASE(SIGMOID)                                                                          \
        CASE(TRIANGULAR)                                                                       \
        CASE(RECTANGULAR)                                                                      \
        CASE(STRAIGHT_THROUGH)                                                                 \
        CASE(RECTIFIER)                                                                        \
    }                                                                                          \
    break
    if (m.neuron == MPR && m.mpr && m.surrogate == STRAIGHT_THROUGH && m.scale == 1) {
        m.neuron = MPR, m.mpr = 1;
        SLOPES(STRAIGHT_THROUGH, 1);
        return;
    }
    switch (m.neuron * 2 + m.mpr) {
    case VSN * 2: m.neuron = VSN, m.mpr = 0; EVERY;
    case LIFB * 2: m.neuron = LIFB, m.mpr = 0; EVERY;
    case MPR * 2: m.neuron = MPR, m.mpr = 0; EVERY;
    case MPR * 2 + 1: m.neuron = MPR, m.mpr = 1; EVERY;
    }
#undef EVERY
#undef CASE
#undef SLOPES
}

#define SLOPE(i) (NAME(Slopes)){fire[i], m.neuron == LIFB ? burst[i] : 0, m.neuron == MPR ? far[i] : 0}

/* Add the gradients of parameters to their rows. */
#define GATHER(g)                                                                              \
    do {                                                                                       \
        decay[i] += (g).decay, gain[i] += (g).gain, threshold[i] += (g).threshold;             \
        if (m.neuron != VSN) a[i] += (g).a;                                                    \
        if (m.neuron == LIFB) b[i] += (g).b;                                                   \
    } while (0)

ALWAYS_INLINE void NAME(backward_lanes)(NAME(Mode) m, int usual, const Call *c, NAME(Scratch) *s, int64_t first, int64_t lanes) {
    const NAME(Parameters) all = AT(0);
    REAL *restrict v = s->v, *restrict fire = s->fire, *restrict burst = s->burst,
         *restrict far = s->distance, *restrict activation = s->activation;
    REAL *restrict decay = s->g[0], *restrict gain = s->g[1], *restrict threshold = s->g[2], *restrict a = s->g[3],
         *restrict b = s->g[4];
    const REAL *restrict v0 = c->v0 ? (const REAL *)c->v0 + first : s->none;
    REAL *restrict gv0 = c->gv0 ? (REAL *)c->gv0 + first : s->last;
    const REAL *restrict gsent = c->gsent ? (const REAL *)c->gsent + first : s->none;
    int64_t segments = (c->steps + c->segment - 1) / c->segment;
    /* whether what is carried is needed again */
    int64_t kept = c->parameter_grads || m.reset == AGAIN || (NAME(waits)(m) && !m.reset_delay) ? c->block : 0;

    EACH v[i] = NAME(start)(m, v0[i], MINE(i));
    for (int64_t n = 0; n < segments - 1; n++) { /* the potential at the beginning of each segment */
        memcpy(s->starts + n * c->block, v, (size_t)lanes * sizeof(REAL));
        for (int64_t t = n * c->segment; t < (n + 1) * c->segment; t++) {
            const REAL *restrict x = (const REAL *)c->x + t * c->count + first;
            EACH v[i] = NAME(step)(m, x[i], v[i], MINE(i)).next;
        }
    }
    memcpy(s->starts + (segments - 1) * c->block, v, (size_t)lanes * sizeof(REAL));
    EACH v[i] = 0; /* from here on, its gradient */
    EACH activation[i] = 1;
    if (c->parameter_grads)
        for (int k = 0; k < PARAMETERS; k++) memset(s->g[k], 0, (size_t)lanes * sizeof(REAL));

    for (int64_t n = segments - 1; n >= 0; n--) {
        int64_t begin = n * c->segment, end = begin + c->segment < c->steps ? begin + c->segment : c->steps;
        memcpy(s->carried, s->starts + n * c->block, (size_t)lanes * sizeof(REAL));
        for (int64_t t = begin; t < end; t++) {
            const REAL *restrict x = (const REAL *)c->x + t * c->count + first;
            const REAL *from = s->carried + (t - begin) * kept;
            REAL *restrict h = s->charged + (t - begin) * c->block;
            REAL *to = s->carried + (t + 1 < end ? t - begin + 1 : 0) * kept;
            int64_t next = t + AHEAD;
            FETCH(next < end ? x + AHEAD * c->count : (const REAL *)c->gy + (2 * end - 1 - next) * c->count + first);
            if (kept && t + 1 == end) to = s->last;
            EACH {
                NAME(Step) now = NAME(step)(m, x[i], from[i], MINE(i));
                h[i] = now.h;
                to[i] = now.next;
            }
        }
        for (int64_t t = end - 1; t >= begin; t--) {
            const REAL *restrict x = (const REAL *)c->x + t * c->count + first;
            const REAL *restrict gy = (const REAL *)c->gy + t * c->count + first;
            const REAL *restrict gs = c->gv_seq ? (const REAL *)c->gv_seq + t * c->count + first : s->none;
            const REAL *restrict h = s->charged + (t - begin) * c->block;
            const REAL *restrict carried = s->carried + (t - begin) * kept;
            REAL *out = (REAL *)c->gx + t * c->count + first;
            REAL *restrict gx = c->stream ? s->out : out;
            if (!usual && c->gv && t == c->steps - 1) {
                const REAL *restrict gv = (const REAL *)c->gv + first;
                REAL *restrict both = s->last;
                EACH both[i] = gs[i] + gv[i];
                gs = s->last;
            }
            int64_t next = t - AHEAD; /* after the first step of the segment comes the segment before it, or the next block */
            FETCH(next >= begin ? gy - AHEAD * c->count
                  : n > 0       ? (const REAL *)c->x + (begin - c->segment + begin - 1 - next) * c->count + first
                                : (const REAL *)c->x + (-1 - next) * c->count + first + lanes);
            const REAL *restrict before = m.reset_delay ? gs : s->none, *restrict after = m.reset_delay ? s->none : gs;
            NAME(slope)(m, s, h, lanes);
            if (m.neuron == VSN && m.activation != IDENTITY) {
                EACH activation[i] = x[i] * NAME(charged)(m, h[i], carried[i], MINE(i)).o;
                NAME(activate_backward)(c, activation, lanes);
            }
#define BACK                                                                                   \
    NAME(back)(m, NAME(charged)(m, h[i], carried[i], MINE(i)), x[i], MINE(i), SLOPE(i), gy[i], gsent[i], \
               m.neuron == VSN && !usual ? activation[i] : 1, before[i], after[i], v[i])
            if (c->parameter_grads) EACH {
                NAME(Gradients) g = BACK;
                GATHER(g.p);
                gx[i] = g.x;
                v[i] = g.v;
            } else EACH {
                NAME(Gradients) g = BACK;
                gx[i] = g.x;
                v[i] = g.v;
            }
#undef BACK
            if (c->stream) copy_out(out, gx, lanes * sizeof(REAL));
        }
    }
    if (m.reset_delay && !NAME(waits)(m) && !c->constant_start) {
        NAME(slope)(m, s, v0, lanes);
        EACH {
            NAME(Parameters) own = {0, 0, 0, 0, 0};
            gv0[i] = NAME(start_backward)(m, v[i], v0[i], MINE(i), SLOPE(i), &own);
            if (c->parameter_grads) GATHER(own);
        }
    } else
        memcpy(gv0, v, (size_t)lanes * sizeof(REAL));
}

/* Gradients of the parameters of a block: one sum for a scalar, else one value a neuron, which the caller sums. */
static void NAME(collect)(const Call *c, NAME(Scratch) *s, int64_t first, int64_t lanes) {
    for (int k = 0; k < PARAMETERS; k++) {
        const Parameter *p = &c->parameters[k];
        if (!p->gradient) continue;
        if (p->middle > 1) {
            memcpy((REAL *)p->gradient + first, s->g[k], (size_t)lanes * sizeof(REAL));
            continue;
        }
        double sum = 0;
        for (int64_t i = 0; i < lanes; i++) sum += s->g[k][i];
        ((double *)p->gradient)[first / c->block] = sum;
    }
}

/* Run `what` for the neuron of the call, as constants where it is fast. */
#define KIND(neuron, reset, mpr) (((neuron)*8 + (reset)) * 2 + (mpr))
#define FOR(what, kind, how, rectified)                                                        \
    case KIND(kind, how, rectified):                                                           \
        m.neuron = kind, m.reset = how, m.mpr = rectified;                                     \
        what;                                                                                  \
        break;
#define COMMON(what)                                                                           \
    FOR(what, VSN, HARD, 0)                                                                    \
    FOR(what, LIFB, HARD, 0)                                                                   \
    FOR(what, LIFB, SOFT, 0)                                                                   \
    FOR(what, LIFB, LATE, 0)                                                                   \
    FOR(what, MPR, SOFT, 0)                                                                    \
    FOR(what, MPR, SOFT, 1)
#define RARE(what)                                                                             \
    FOR(what, LIFB, AGAIN, 0)                                                                  \
    FOR(what, LIFB, NONE, 0)                                                                   \
    FOR(what, MPR, HARD, 0)                                                                    \
    FOR(what, MPR, HARD, 1)
#define DISPATCH(what)                                                                         \
    if (SPECIALISED && is_usual) {                                                             \
        enum { usual = 1 };                                                                    \
        m.spiking = m.quiet = 1, m.v_reset = 0, m.activation = IDENTITY;                       \
        switch (KIND(c->neuron, c->reset, c->mpr)) { COMMON(what) }                            \
    } else if (c->spiking) {                                                                   \
        enum { usual = 0 };                                                                    \
        m.spiking = 1;                                                                         \
        switch (KIND(c->neuron, c->reset, c->mpr)) {                                           \
            COMMON(what)                                                                       \
            RARE(what)                                                                         \
        default:                                                                               \
            what;                                                                              \
        }                                                                                      \
    } else {                                                                                   \
        enum { usual = 0 };                                                                    \
        what;                                                                                  \
    }

/* Whether a call is a usual one, with loops of its own: a common neuron whose parameters are the same for all, and nothing
 * is asked of potentials or comes from them. */
static int NAME(usual)(const Call *c) {
    NAME(Mode) m;
    int common = 0;
    switch (KIND(c->neuron, c->reset, c->mpr)) { COMMON(common = 1) }
    for (int k = 0; k < PARAMETERS; k++) common &= c->parameters[k].middle == 1;
    (void)m;
    return SPECIALISED && common && c->spiking && c->v_reset == 0 && c->activation == IDENTITY && !c->v_seq && !c->gv &&
           !c->gv_seq;
}

/* Whether every number of a call is one that something is known by: none may choose another neuron. */
static int NAME(known)(const Call *c) {
    long long flags = c->spiking | c->strict | c->detach_reset | c->reset_delay | c->constant_start | c->mpr | c->parameter_grads;
#define AMONG(number, last) ((unsigned long long)(number) <= (last))
    return AMONG(c->neuron, MPR) && AMONG(c->reset, NONE) && AMONG(c->surrogate, RECTIFIER) && AMONG(c->activation, GELU) &&
           AMONG(flags, 1) && (!c->mpr || c->neuron == MPR) && c->steps > 0 && c->segment > 0 && c->block > 0;
}

#define MODE                                                                                   \
    {c->neuron, c->reset, c->activation, c->surrogate, c->spiking, c->strict, c->detach_reset, \
     c->reset_delay, c->mpr, 0, (REAL)c->scale, (REAL)c->v_reset, (REAL)c->power}

EXPORT CLONES int NAME(snn_ext_forward)(const Call *c, int64_t begin, int64_t end) {
    if (!NAME(known)(c)) return UNKNOWN;
    NAME(Mode) m = MODE;
    int is_usual = NAME(usual)(c);
    NAME(Scratch) scratch, *s = &scratch;
    void *memory = NAME(allocate)(c, 0, s);
    if (!memory) return NO_MEMORY;
    for (int64_t first = begin; first < end; first += c->block) {
        int64_t lanes = end - first < c->block ? end - first : c->block;
        NAME(prepare)(c, s, first, lanes, first == begin);
        DISPATCH(NAME(forward_lanes)(m, usual, c, s, first, lanes))
    }
    free(memory);
    FENCE;
    return 0;
}

EXPORT CLONES int NAME(snn_ext_backward)(const Call *c, int64_t begin, int64_t end) {
    if (!NAME(known)(c)) return UNKNOWN;
    NAME(Mode) m = MODE;
    int is_usual = NAME(usual)(c);
    NAME(Scratch) scratch, *s = &scratch;
    void *memory = NAME(allocate)(c, 1, s);
    if (!memory) return NO_MEMORY;
    for (int64_t first = begin; first < end; first += c->block) {
        int64_t lanes = end - first < c->block ? end - first : c->block;
        NAME(prepare)(c, s, first, lanes, first == begin);
        DISPATCH(NAME(backward_lanes)(m, usual, c, s, first, lanes))
        if (c->parameter_grads) NAME(collect)(c, s, first, lanes);
    }
    free(memory);
    FENCE;
    return 0;
}

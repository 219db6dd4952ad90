/* The dynamics of one neuron over one time step, and their derivatives: the equations of snn_ext/neurons in C.
 *
 * One text for every processor: cpu.c includes it for float and for double, kernel.cu is compiled by NVRTC
 * for the precision asked for.  Who includes it defines
 *
 *   REAL         float or double
 *   NAME(f)      the name of a function or type in that precision
 *   INLINE       how an inline function is declared, FUNCTION how one is that may be called
 *   EXP, TANH, ATAN, ERF, RCBRT (one over the cube root), FABS     elementary functions in that precision
 *
 * Operations stand in the order of the reference, and no compiler may contract them: the potentials, and with them the
 * events, are those of the reference to the last bit.  Multiplications by events are kept (not turned into
 * selections), so that NaN and infinity go where they go there.
 */

#ifndef SNN_EXT_ENUMERATIONS
#define SNN_EXT_ENUMERATIONS
/* The numbers that snn_ext/ops/calls.py knows these by. */
enum { VSN, LIFB, MPR };
enum { HARD, SOFT, LATE, AGAIN, NONE };
enum { ATAN_, FAST_SIGMOID, SIGMOID, TRIANGULAR, RECTANGULAR, STRAIGHT_THROUGH, RECTIFIER };
enum { IDENTITY, RELU, TANH_, GELU };
enum { PARAMETERS = 5 };
#endif

#define PI 3.14159265358979323846
#define TANH_3_2 0.90514825364486643824 /* tanh(3/2) */
#define FAR_ ((REAL)1099511627776.0)    /* 2^40 spikes, beyond which the potential does not matter */

/* Which neuron it is: constants to the compiler in the fast loops, values in the general one.  `quiet`: no gradients
 * come from potentials.  `power`: that of the spikes sent, which are 0 and 1 unless it is 1. */
typedef struct {
    int neuron, reset, activation, surrogate, spiking, strict, detach_reset, reset_delay, mpr, quiet;
    REAL scale, v_reset, power;
} NAME(Mode);

/* Its parameters: `a` and `b` are burst threshold and intensity (LIFB), `a` the amplitude (MPR). */
typedef struct {
    REAL decay, gain, threshold, a, b;
} NAME(Parameters);

/* One step: carried potential after a reset that was due, the event that was due, charged potential, event,
 * what is reset now, potential carried on. */
typedef struct {
    REAL v, due, h, o, now, next;
} NAME(Step);

/* Gradients of one step. */
typedef struct {
    REAL x, v;
    NAME(Parameters) p;
} NAME(Gradients);

/* What the derivative of firing needs: slopes at the threshold and at the burst threshold, and (MPR) the
 * distance in spikes. */
typedef struct {
    REAL fire, burst, distance;
} NAME(Slopes);

INLINE REAL NAME(square)(REAL x) { return x * x; }

/* ---- surrogates (snn_ext/surrogate.py) ---- */

INLINE REAL NAME(gradient)(int surrogate, REAL scale, REAL u) {
    switch (surrogate) {
    case ATAN_:
        return scale / 2 / (1 + NAME(square)((REAL)(PI / 2) * scale * u));
    case FAST_SIGMOID:
        return 1 / NAME(square)(1 + scale * FABS(u));
    case SIGMOID: {
        REAL e = EXP(-FABS(scale * u));
        return scale * e / NAME(square)(1 + e);
    }
    case TRIANGULAR: {
        REAL g = 1 - FABS(u) / scale;
        return (g < 0 ? 0 : g) / scale;
    }
    case RECTANGULAR:
        return FABS(u) < scale / 2 ? 1 / scale : 0;
    case STRAIGHT_THROUGH:
        return FABS(u) <= scale / 2 ? 1 / scale : 0;
    default: {
        REAL g = (REAL)(1.5 / TANH_3_2) / scale * (1 - NAME(square)(TANH(3 / scale * u)));
        return FABS(u) <= scale / 2 ? g : 0;
    }
    }
}

INLINE REAL NAME(clamp)(REAL x, REAL low, REAL high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

/* The smooth stand-in for the step. */
FUNCTION REAL NAME(primitive)(int surrogate, REAL scale, REAL u) {
    REAL z;
    switch (surrogate) {
    case ATAN_:
        return ATAN((REAL)(PI / 2) * scale * u) / (REAL)PI + (REAL)0.5;
    case FAST_SIGMOID:
        return u / (1 + scale * FABS(u)) + (REAL)0.5;
    case SIGMOID: {
        REAL e = EXP(-FABS(scale * u));
        return (u >= 0 ? 1 : e) / (1 + e);
    }
    case TRIANGULAR:
        z = NAME(clamp)(u / scale, -1, 1);
        return (REAL)0.5 + z - z * FABS(z) / 2;
    case RECTANGULAR:
    case STRAIGHT_THROUGH:
        return NAME(clamp)(u / scale + (REAL)0.5, 0, 1);
    default:
        z = NAME(clamp)(u / scale, (REAL)-0.5, (REAL)0.5);
        return (REAL)0.5 + (REAL)(0.5 / TANH_3_2) * TANH(3 * z);
    }
}

INLINE REAL NAME(spike)(NAME(Mode) m, REAL u) {
    if (!m.spiking) return NAME(primitive)(m.surrogate, m.scale, u);
    return (u > 0) | ((u == 0) & !m.strict) ? (REAL)1 : (REAL)0;
}

/* ---- activations of a graded spike (snn_ext/neurons/activation.py) ---- */

INLINE REAL NAME(activation)(int activation, REAL z) {
    switch (activation) {
    case RELU:
        return z < 0 ? 0 : z;
    case TANH_:
        return TANH(z);
    case GELU:
        return (REAL)0.5 * z * (1 + ERF(z * (REAL)0.70710678118654752440));
    default:
        return z;
    }
}

INLINE REAL NAME(activation_gradient)(int activation, REAL z) {
    switch (activation) {
    case RELU:
        return z > 0 ? (REAL)1 : (REAL)0;
    case TANH_:
        return 1 - NAME(square)(TANH(z));
    case GELU:
        return (REAL)0.5 * (1 + ERF(z * (REAL)0.70710678118654752440)) +
               z * EXP((REAL)-0.5 * z * z) * (REAL)0.39894228040143267794;
    default:
        return 1;
    }
}

/* ---- the membrane potential rectifier (snn_ext/neurons/soft_reset_mpr.py) ---- */

INLINE REAL NAME(distance)(REAL h, NAME(Parameters) p) {
    REAL far = FAR_ * p.a, u = h - p.threshold;
    u = u > far ? far : u;
    return (u < -far ? -far : u) / p.a;
}

/* The rectifier and its slope. */
INLINE REAL NAME(rectify)(REAL z, REAL *slope) {
    REAL size = FABS(z), bend = TANH(3 * z), beyond_half = size + (REAL)0.5, inverse = RCBRT(beyond_half);
    REAL root = beyond_half * inverse * inverse;
    REAL beyond = z > 0 ? root - (REAL)0.5 : z < 0 ? (REAL)0.5 - root : 0 * z;
    *slope = size <= (REAL)0.5 ? (REAL)(1.5 / TANH_3_2) * (1 - bend * bend) : inverse * inverse / 3;
    return size <= (REAL)0.5 ? (REAL)(0.5 / TANH_3_2) * bend : beyond;
}

/* The same for a surrogate that asks only whether `z` is within half a spike, which the rectifier does not change, and
 * gives zero if it is not: there the slope may be anything finite. */
INLINE REAL NAME(rectify_within)(REAL z, REAL *slope) {
    REAL e = EXP(-6 * FABS(z)); /* 1 - tanh(3 z)^2 = 4 e / (1 + e)^2 */
    *slope = (REAL)(6 / TANH_3_2) * e / NAME(square)(1 + e);
    return z;
}

/* ---- forward ---- */

INLINE int NAME(waits)(NAME(Mode) m) { return m.reset == LATE || m.reset == AGAIN; }

INLINE REAL NAME(subtracted)(NAME(Mode) m, NAME(Parameters) p) {
    return m.neuron == MPR ? p.a : p.threshold;
}

INLINE REAL NAME(fire)(NAME(Mode) m, REAL h, NAME(Parameters) p) {
    REAL unused, z;
    if (m.neuron != MPR || m.spiking) return NAME(spike)(m, h - p.threshold);
    z = NAME(distance)(h, p);
    return NAME(spike)(m, m.mpr ? NAME(rectify)(z, &unused) : z);
}

INLINE REAL NAME(reset)(NAME(Mode) m, REAL h, REAL o, NAME(Parameters) p) {
    if (m.reset == HARD || m.reset == AGAIN) return m.v_reset == 0 ? (1 - o) * h : (1 - o) * h + o * m.v_reset;
    return m.reset == NONE ? h : h - NAME(subtracted)(m, p) * o;
}

/* The potential that the first step carries: that which came in, after a reset that is due to it. */
INLINE REAL NAME(start)(NAME(Mode) m, REAL v0, NAME(Parameters) p) {
    return m.reset_delay && !NAME(waits)(m) ? NAME(reset)(m, v0, NAME(fire)(m, v0, p), p) : v0;
}

/* The step whose charged potential is `h`, from the carried potential `v` (needed if a reset waits, and for `s.v`). */
INLINE NAME(Step) NAME(charged)(NAME(Mode) m, REAL h, REAL v, NAME(Parameters) p) {
    NAME(Step) s;
    s.due = NAME(waits)(m) ? NAME(fire)(m, v, p) : 0;
    s.v = m.reset == AGAIN ? (1 - s.due) * v : v;
    s.h = h;
    s.o = NAME(fire)(m, s.h, p);
    s.now = NAME(waits)(m) ? s.o - s.due : s.o;
    s.next = NAME(waits)(m) && m.reset_delay ? s.h : NAME(reset)(m, s.h, s.now, p);
    return s;
}

INLINE NAME(Step) NAME(step)(NAME(Mode) m, REAL x, REAL v, NAME(Parameters) p) {
    REAL due = NAME(waits)(m) ? NAME(fire)(m, v, p) : 0;
    REAL h = p.decay * (m.reset == AGAIN ? (1 - due) * v : v) + p.gain * x;
    if (m.reset == HARD && m.v_reset != 0) h = h + (1 - p.decay) * m.v_reset;
    if (m.reset == LATE) h = h - due * NAME(subtracted)(m, p);
    return NAME(charged)(m, h, v, p);
}

/* What goes out, but for the activation of a VSN, which is applied to it. */
INLINE REAL NAME(emit)(NAME(Mode) m, REAL x, NAME(Step) s, NAME(Parameters) p) {
    if (m.neuron == VSN) return x * s.o;
    if (m.neuron == MPR) return p.a * s.o;
    return s.o + (p.b - 1) * NAME(spike)(m, s.h - p.a);
}

/* How many spikes that is, as they are sent. */
INLINE REAL NAME(sent)(NAME(Mode) m, NAME(Step) s, NAME(Parameters) p) {
    return m.neuron == LIFB ? s.o + (p.b - 1) * NAME(spike)(m, s.h - p.a) : s.o;
}

/* Smooth events, which may be NaN, are raised by the reference alone. */
INLINE REAL NAME(raised_slope)(NAME(Mode) m, REAL o) { return m.power == 1 || !m.spiking ? (REAL)1 : m.power * o; }

/* ---- backward ---- */

/* The slopes of firing at the potential `h`; `within`: rectify as for such a surrogate. */
INLINE NAME(Slopes) NAME(slopes)(NAME(Mode) m, REAL h, NAME(Parameters) p, int within) {
    NAME(Slopes) at = {0, 0, 0};
    if (m.neuron == MPR) {
        REAL steepness = 1, u = at.distance = NAME(distance)(h, p);
        if (m.mpr) u = within ? NAME(rectify_within)(u, &steepness) : NAME(rectify)(u, &steepness);
        at.fire = NAME(gradient)(m.surrogate, m.scale, u);
        if (m.mpr) at.fire = at.fire * steepness;
        return at;
    }
    at.fire = NAME(gradient)(m.surrogate, m.scale, h - p.threshold);
    if (m.neuron == LIFB) at.burst = NAME(gradient)(m.surrogate, m.scale, h - p.a);
    return at;
}

/* Through firing: adds to the gradient of `h`, and to those of the parameters. */
INLINE REAL NAME(fire_backward)(NAME(Mode) m, REAL go, NAME(Slopes) at, NAME(Parameters) p,
                                NAME(Parameters) *g) {
    REAL gu = go * at.fire;
    if (m.neuron == MPR) {
        gu = (FABS(at.distance) < FAR_ ? gu : 0) / p.a;
        g->a -= gu * at.distance;
    }
    g->threshold -= gu;
    return gu;
}

/* Through the reset: the gradient of `h`, and that of the event in `go`. */
INLINE REAL NAME(reset_backward)(NAME(Mode) m, REAL gv, REAL h, REAL o, NAME(Parameters) p, REAL *go,
                                 NAME(Parameters) *g) {
    if (m.reset == HARD || m.reset == AGAIN) {
        *go = m.detach_reset ? 0 : gv * (m.v_reset - h);
        return gv * (1 - o);
    }
    *go = m.detach_reset || m.reset == NONE ? 0 : -gv * NAME(subtracted)(m, p);
    if (m.reset != NONE) {
        if (m.neuron == MPR)
            g->a -= gv * o;
        else
            g->threshold -= gv * o;
    }
    return gv;
}

/* One step back.  `gy` comes from outside, and so do `gs`, the gradient of the spikes sent, and `g_before` and
 * `g_after`, those of the potential before and after the reset; `gv` comes from the step after; `activation` is the derivative of the activation (VSN). */
INLINE NAME(Gradients) NAME(back)(NAME(Mode) m, NAME(Step) s, REAL x, NAME(Parameters) p, NAME(Slopes) at,
                                  REAL gy, REAL gs, REAL activation, REAL g_before, REAL g_after, REAL gv) {
    NAME(Gradients) g = {0, 0, {0, 0, 0, 0, 0}};
    REAL gh, gu = 0, go = 0, through_reset = 0;
    if (!m.quiet) gv = gv + g_after;
    gh = NAME(waits)(m) && m.reset_delay ? gv : NAME(reset_backward)(m, gv, s.h, s.now, p, &through_reset, &g.p);
    if (!m.quiet) gh = gh + g_before;
    if (m.neuron == VSN) {
        gu = gy * activation;
        g.x = gu * s.o;
        go = gu * x;
    } else if (m.neuron == LIFB) {
        REAL b = NAME(spike)(m, s.h - p.a);
        go = gy;
        gu = (gy + gs * NAME(raised_slope)(m, b)) * (p.b - 1) * at.burst;
        g.p.a = -gu;
        g.p.b = (gy + gs) * b;
    } else {
        go = gy * p.a;
        g.p.a += gy * s.o;
    }
    go = go + gs * NAME(raised_slope)(m, s.o);
    gh = gh + NAME(fire_backward)(m, go + through_reset, at, p, &g.p);
    if (m.neuron == LIFB) gh = gh + gu;
    g.p.decay = gh * (s.v - m.v_reset);
    g.p.gain = gh * x;
    if (m.reset == LATE) {
        if (m.neuron == MPR)
            g.p.a -= gh * s.due;
        else
            g.p.threshold -= gh * s.due;
    }
    g.v = p.decay * gh;
    if (m.reset == AGAIN) g.v = (1 - s.due) * g.v;
    g.x = g.x + p.gain * gh;
    return g;
}

/* Through the reset that is due to the initial potential; `at` are the slopes there. */
INLINE REAL NAME(start_backward)(NAME(Mode) m, REAL gv, REAL v0, NAME(Parameters) p, NAME(Slopes) at,
                                 NAME(Parameters) *g) {
    REAL go, gh = NAME(reset_backward)(m, gv, v0, NAME(fire)(m, v0, p), p, &go, g);
    return m.detach_reset || m.reset == NONE ? gh : gh + NAME(fire_backward)(m, go, at, p, g);
}

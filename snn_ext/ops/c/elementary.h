/* Elementary functions that a compiler can turn into vector instructions: no branches, no calls, no tables.
 * Included for float and for double, like dynamics.h; BITS is the unsigned integer of the same size.
 *
 * Accurate to a few units in the last place, but where it says otherwise.  NaN comes out as NaN. */

INLINE REAL NAME(from_bits)(BITS bits) {
    REAL x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE BITS NAME(to_bits)(REAL x) {
    BITS bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* exp(x) - 1 = 2^n (e^r - 1) + (2^n - 1), x = n log 2 + r; `power` gets 2^n, `rest` e^r - 1.  For |x| below
 * EXP_LIMIT. */
INLINE void NAME(reduce)(REAL x, REAL *power, REAL *rest) {
    const REAL magic = ROUNDER; /* adding it rounds to an integer, which is then in the low bits */
    REAL shifted = x * (REAL)1.4426950408889634074 + magic, n = shifted - magic, r, p;
    r = (x - n * LN2_HIGH) - n * LN2_LOW;
    /* 1 + r/2! + r^2/3! + ...; `inverse` is folded by the compiler */
    REAL inverse = 1;
    UNROLL for (int k = 2; k <= EXP_TERMS; k++) inverse = inverse / k;
    p = inverse;
    UNROLL for (int k = EXP_TERMS; k > 1; k--) inverse = inverse * k, p = p * r + inverse;
    *rest = p * r;
    *power = NAME(from_bits)((NAME(to_bits)(shifted) + EXP_BIAS) << EXP_SHIFT);
}

/* exp(x) for x <= 0, which is all that is needed; zero below -EXP_LIMIT.  In float by a polynomial fitted to 2^-r, |r| < 1/2
 * (errors below 3e-7 + 1e-7 |x|). */
INLINE REAL NAME(exp)(REAL x) {
#ifdef OWN_EXP
    REAL t = x * (REAL)-1.4426950408889634074, shifted, r, p;
    t = t > 126 ? 126 : t;
    shifted = t + ROUNDER;
    r = t - (shifted - ROUNDER);
    p = -1.327647152e-03f;
    p = p * r + 9.675541331e-03f;
    p = p * r - 5.550713275e-02f;
    p = p * r + 2.402211972e-01f;
    p = p * r - 6.931469671e-01f;
    p = p * r + 1.000000072f;
    return x < -EXP_LIMIT ? 0 : p * NAME(from_bits)((EXP_BIAS - NAME(to_bits)(shifted)) << EXP_SHIFT);
#else
    REAL power, rest;
    NAME(reduce)(x < -EXP_LIMIT ? -EXP_LIMIT : x, &power, &rest);
    return x < -EXP_LIMIT ? 0 : power + power * rest;
#endif
}

INLINE REAL NAME(tanh)(REAL x) {
    REAL size = FABS(x), power, rest, e;
    size = size > 20 ? 20 : size;
    NAME(reduce)(2 * size, &power, &rest);
    e = power * rest + (power - 1);
    e = e / (e + 2);
    return x < 0 ? -e : e;
}

/* One over the cube root of a number from 0.5 to 2^50: a guess from its exponent, then Newton's iteration. */
INLINE REAL NAME(rcbrt)(REAL x) {
    float narrow = (float)x, guess;
    uint32_t bits;
    REAL y;
    memcpy(&bits, &narrow, sizeof bits);
    bits = 0x54a21d2au - bits / 3;
    memcpy(&guess, &bits, sizeof guess);
    y = (REAL)guess;
    UNROLL for (int k = 0; k < RCBRT_STEPS; k++) y = y * ((REAL)4 / 3 - x * y * y * y * ((REAL)1 / 3));
    return y;
}

/* The error function: in float by two polynomials fitted to it (errors below 1e-7), in double by the library. */
INLINE REAL NAME(erf)(REAL x) {
#ifdef OWN_ERF
    REAL size = FABS(x), w = x * x, inner, outer;
    inner = 7.882497112e-05f;
    inner = inner * w - 8.018854993e-04f;
    inner = inner * w + 5.189311943e-03f;
    inner = inner * w - 2.685432880e-02f;
    inner = inner * w + 1.128359746e-01f;
    inner = inner * w - 3.761262690e-01f;
    inner = (inner * w + 1.128379166f) * x;
    outer = 1.330939038e-05f;
    outer = outer * size - 3.175720345e-04f;
    outer = outer * size + 3.436867597e-03f;
    outer = outer * size - 2.262198592e-02f;
    outer = outer * size + 1.033189800e-01f;
    outer = outer * size + 6.390933195e-01f;
    outer = outer * size + 1.125925949f;
    outer = outer * size + 7.569686281e-04f;
    outer = 1 - NAME(exp)(-outer);
    outer = size >= 4 ? 1 : outer;
    return size < 1 ? inner : x < 0 ? -outer : outer;
#else
    return erf(x);
#endif
}

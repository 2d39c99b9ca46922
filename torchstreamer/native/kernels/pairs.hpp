
// Products of two values of one sample: `out[b][i][j]` is the sum over `k` of `x[b][i][k] * y[b][k][j]`, which stand apart
// by the steps that are given.
template <int NB, int NI, int NJ, int NK, int XB, int XI, int XK, int YB, int YJ, int YK>
TS_INLINE void pairs(const real* x, const real* y, real* out) {
  for (int b = 0; b < NB; ++b)
    for (int i = 0; i < NI; ++i) {
      const real *p = x + b * XB + i * XI, *q = y + b * YB;
      real* const to = out + (b * NI + i) * NJ;
      if constexpr (YJ == 1) {
        for (int j = 0; j < NJ; ++j) to[j] = 0;
        for (int k = 0; k < NK; ++k)
          for (int j = 0; j < NJ; ++j) to[j] += p[k * XK] * q[k * YK + j];
      } else {
        for (int j = 0; j < NJ; ++j) {
          real sum = 0;
          int k = 0;
#if !TS_PLAIN
          if constexpr (XK == 1 && YK == 1 && NK >= LANES) {
            typedef typename Lanes<LANES>::T V;
            V sums{};
            for (; k + LANES <= NK; k += LANES) sums += fetch<V>(p + k) * fetch<V>(q + j * YJ + k);
            for (int e = 0; e < LANES; ++e) sum += sums[e];
          }
#endif
          for (; k < NK; ++k) sum += p[k * XK] * q[j * YJ + k * YK];
          to[j] = sum;
        }
      }
    }
}

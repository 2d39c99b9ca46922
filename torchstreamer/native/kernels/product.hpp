// Products of rows with weights: convolutions, linear layers, phases of transposed convolutions.
//
// Rows lie one sample after the other. Output row `i` is the sum over taps `k` of input row `i * ST + k * D`, each of
// `CIN` numbers, times weights, which lie in blocks of 64 outputs, or 16: [outputs / 16][taps * CIN][16].
constexpr int padded(int outputs) { return outputs > 8 ? (outputs + 15) / 16 * 16 : power(outputs); }
constexpr int block(int outputs) { return outputs % 64 == 0 ? 64 : least(outputs, 16); }

struct Same {
  template <class V> TS_INLINE V operator()(V a, int, int) const { return a; }
};

#if TS_PLAIN
template <int CIN, int SI, int ST, int COUT, int SO, int K, int D, class F>
void product(const real* in, const real* w, const real* b, real* out, int rows, const F& f) {
  constexpr int WIDE = block(padded(COUT));
  for (int i = 0; i < rows; ++i)
    for (int o = 0; o < COUT; ++o) {
      real a = b[o];
      const real* column = w + o / WIDE * (K * CIN * WIDE) + o % WIDE;
      for (int k = 0; k < K; ++k)
        for (int c = 0; c < CIN; ++c) a += in[(i * ST + k * D) * SI + c] * column[(k * CIN + c) * WIDE];
      out[i * SO + o] = f(a, i, o);
    }
}
#else
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int SUMS = 24, COLUMNS = 4;  // vectors that add up at once, of 32 registers, and those of a row
#else
constexpr int SUMS = 12, COLUMNS = 2;  // of 16
#endif

// `TB` rows by `NV` vectors of outputs; a sum in `U` parts where there are few of them.
template <int N, int NV, int TB, int U, int CIN, int STEP, int TAP, int K, int SO, int WIDE, class F>
TS_INLINE void tile(const real* __restrict in, const real* __restrict w, const real* __restrict b,
                    real* __restrict out, int row, int column, const F& f) {
  typedef typename Lanes<N>::T V;
  V a[TB * U][NV];
  TS_UNROLL for (int i = 0; i < TB * U; ++i)
    TS_UNROLL for (int q = 0; q < NV; ++q) a[i][q] = i < TB ? fetch<V>(b + q * N) : V{};
  for (int k = 0; k < K; ++k) {
    const real* p = in + k * TAP;
    const real* wk = w + k * CIN * WIDE;
    if constexpr (U == 1) {
      TS_TWICE for (int c = 0; c < CIN; ++c) {
        V x[NV];
        TS_UNROLL for (int q = 0; q < NV; ++q)
          x[q] = fetch<V>(wk + c * WIDE + q * N / WIDE * (K * CIN * WIDE) + q * N % WIDE);
        TS_UNROLL for (int i = 0; i < TB; ++i)
          TS_UNROLL for (int q = 0; q < NV; ++q) a[i][q] += p[i * STEP + c] * x[q];
      }
    } else {
      for (int c = 0; c < CIN; c += U)
        TS_UNROLL for (int u = 0; u < U; ++u)
          TS_UNROLL for (int i = 0; i < TB; ++i)
            TS_UNROLL for (int q = 0; q < NV; ++q)
              a[u * TB + i][q] += p[i * STEP + c + u] *
                                  fetch<V>(wk + (c + u) * WIDE + q * N / WIDE * (K * CIN * WIDE) + q * N % WIDE);
    }
  }
  TS_UNROLL for (int u = 1; u < U; ++u)
    TS_UNROLL for (int i = 0; i < TB; ++i)
      TS_UNROLL for (int q = 0; q < NV; ++q) a[i][q] += a[u * TB + i][q];
  TS_UNROLL for (int i = 0; i < TB; ++i)
    TS_UNROLL for (int q = 0; q < NV; ++q)
      put<V>(out + i * SO + q * N, f(a[i][q], row + i, column + q * N));
}

constexpr int parts(int sums, int channels) {
  return channels % 4 == 0 && sums * 4 <= SUMS ? 4 : channels % 2 == 0 && sums * 2 <= SUMS ? 2 : 1;
}

// As few tiles as can be, and as equally high.
template <int N, int NV, int TB, int CIN, int STEP, int TAP, int K, int SO, int WIDE, class F>
TS_INLINE void columns(const real* in, const real* w, const real* b, real* out, int rows, int column, const F& f) {
  int tiles = (rows + TB - 1) / TB;
  for (int t = 0; t < rows; --tiles) {
    const int high = (rows - t + tiles - 1) / tiles;
#define TS_TILE(HIGH)                                                                                        \
  if constexpr (HIGH <= TB)                                                                                  \
    if (high == HIGH)                                                                                        \
  tile<N, NV, HIGH, parts(NV * HIGH, CIN), CIN, STEP, TAP, K, SO, WIDE>(in + t * STEP, w, b, out + t * SO, t, column, f)
    TS_TILE(1);
    TS_TILE(2);
    TS_TILE(3);
    TS_TILE(4);
    TS_TILE(5);
    TS_TILE(6);
#undef TS_TILE
    t += high;
  }
}

template <int N, int NV, int TB, int CIN, int STEP, int TAP, int K, int PAD, int SO, class F>
TS_INLINE void blocks(const real* in, const real* w, const real* b, real* out, int rows, const F& f) {
  constexpr int ALL = PAD / N, WIDE = block(PAD);
#define TS_AT(Q) in, w + (Q) * N / WIDE * (K * CIN * WIDE) + (Q) * N % WIDE, b + (Q) * N, out + (Q) * N, rows, (Q) * N, f
  for (int q = 0; q + NV <= ALL; q += NV) columns<N, NV, TB, CIN, STEP, TAP, K, SO, WIDE>(TS_AT(q));
  if constexpr (ALL % NV != 0)
    columns<N, ALL % NV, TB, CIN, STEP, TAP, K, SO, WIDE>(TS_AT(ALL / NV * NV));
#undef TS_AT
}

template <int CIN, int SI, int ST, int COUT, int SO, int K, int D, class F>
TS_APART void product(const real* in, const real* w, const real* b, real* out, int rows, const F& f) {
  constexpr int PAD = padded(COUT);
  constexpr int N = least(LANES, PAD), ALL = PAD / N, NV = least(ALL, COLUMNS), TB = least(SUMS / NV, 6);
  if (rows == 1)
    blocks<N, least(ALL, 8), 1, CIN, ST * SI, D * SI, K, PAD, SO>(in, w, b, out, 1, f);
  else
    blocks<N, NV, TB, CIN, ST * SI, D * SI, K, PAD, SO>(in, w, b, out, rows, f);
}
#endif

// Every channel by itself: weights are [taps][channels].
template <int C, int SI, int ST, int SO, int K, int D, class F>
TS_APART void depthwise(const real* in, const real* w, const real* b, real* out, int rows, const F& f) {
  for (int i = 0; i < rows; ++i)
    each<C>([&](auto z, int e) {
      typedef decltype(z) V;
      V a = fetch<V>(b + e);
      for (int k = 0; k < K; ++k) a += fetch<V>(in + (i * ST + k * D) * SI + e) * fetch<V>(w + k * C + e);
      put<V>(out + i * SO + e, f(a, i, e));
    });
}

// Groups of channels: weights are [outputs][taps][inputs of a group].
template <int CIN, int SI, int ST, int COUT, int SO, int K, int D, int GROUPS, class F>
TS_APART void grouped(const real* in, const real* w, const real* b, real* out, int rows, const F& f) {
  for (int i = 0; i < rows; ++i)
    for (int o = 0; o < COUT; ++o) {
      const real* x = in + o / (COUT / GROUPS) * (CIN / GROUPS);
      const real* own = w + o * (K * (CIN / GROUPS));
      real a = b[o];
      for (int k = 0; k < K; ++k)
        for (int c = 0; c < CIN / GROUPS; ++c) a += x[(i * ST + k * D) * SI + c] * own[k * (CIN / GROUPS) + c];
      out[i * SO + o] = f(a, i, o);
    }
}

// Windows of which the largest number, or the mean, of each channel is taken.
template <int C, int SI, int ST, int SO, int K, int D>
TS_APART void largest(const real* in, real* out, int rows) {
  for (int i = 0; i < rows; ++i)
    each<C>([&](auto z, int e) {
      typedef decltype(z) V;
      V a = fetch<V>(in + i * ST * SI + e);
      for (int k = 1; k < K; ++k) a = larger(fetch<V>(in + (i * ST + k * D) * SI + e), a);
      put<V>(out + i * SO + e, a);
    });
}

// Vectors of numbers in the dialect of g++ and clang; of one number where a compiler has no such dialect.
#ifndef TS_PLAIN
#if defined(TORCHSTREAMER_PLAIN) || !(defined(__GNUC__) || defined(__clang__))
#define TS_PLAIN 1
#define TS_INLINE inline
#define TS_APART
#define TS_UNROLL
#define TS_TWICE
#else
#define TS_PLAIN 0
#define TS_INLINE inline __attribute__((always_inline))
#define TS_APART __attribute__((noinline))
#ifdef __clang__
#define TS_UNROLL _Pragma("unroll")
#define TS_TWICE _Pragma("unroll 2")
#else
#define TS_UNROLL _Pragma("GCC unroll 32")
#define TS_TWICE _Pragma("GCC unroll 2")
#endif
#endif
#endif

#if TS_PLAIN
constexpr int BYTES = sizeof(real);
#elif defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
constexpr int LANES = BYTES / int(sizeof(real));

constexpr int least(int a, int b) { return a < b ? a : b; }
constexpr int most(int a, int b) { return a > b ? a : b; }
constexpr int power(int n) { return n <= 1 ? 1 : 2 * power((n + 1) / 2); }  // the next power of 2

template <int N> struct Lanes {
#if !TS_PLAIN
  typedef real T __attribute__((vector_size(N * sizeof(real))));
#endif
};
template <> struct Lanes<1> { typedef real T; };

// Unaligned, as rows may begin anywhere.
template <class V> TS_INLINE V fetch(const real* p) { V v; std::memcpy(&v, p, sizeof v); return v; }
template <class V> TS_INLINE void put(real* p, V v) { std::memcpy(p, &v, sizeof v); }
template <class V> TS_INLINE V splat(real x) { return V{} + x; }
template <class V> constexpr int lanes() { return int(sizeof(V) / sizeof(real)); }

// `f(V{}, e)` for `E` numbers, in vectors as wide as the machine has them, and narrower ones for the rest.
template <int E, int N = LANES, class F> TS_INLINE void each(const F& f, int e = 0) {
  if constexpr (N == 1) {
    for (; e < E; ++e) f(real{}, e);
  } else {
    for (; e + N <= E; e += N) f(typename Lanes<N>::T{}, e);
    if (E % N) each<E, N / 2>(f, e);
  }
}

// The same for a number of numbers that is known when it runs.
template <class F> TS_INLINE void every(long count, const F& f) {
  long e = 0;
  if constexpr (LANES > 1)
    for (; e + LANES <= count; e += LANES) f(typename Lanes<LANES>::T{}, e);
  for (; e < count; ++e) f(real{}, e);
}

// A function of a single number, lane by lane.
template <class V, class F> TS_INLINE V lanewise(V x, const F& f) {
  if constexpr (lanes<V>() == 1) {
    return f(x);
  } else {
    V y = x;
    for (int i = 0; i < lanes<V>(); ++i) y[i] = f(x[i]);
    return y;
  }
}
template <class V, class F> TS_INLINE V lanewise(V x, V z, const F& f) {
  if constexpr (lanes<V>() == 1) {
    return f(x, z);
  } else {
    V y = x;
    for (int i = 0; i < lanes<V>(); ++i) y[i] = f(x[i], z[i]);
    return y;
  }
}

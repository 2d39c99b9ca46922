// What lies outside of the signal is padding: rows before position 0, and from position `length` on.
template <int S> TS_INLINE void outside(real* rows, int64_t begin, int64_t length, int count, real value) {
  if (begin >= 0 && begin + count <= length) return;
  int64_t left = begin < 0 ? (-begin < count ? -begin : count) : 0;
  int64_t right = length - begin < 0 ? 0 : length - begin < count ? length - begin : count;
  for (int64_t i = 0; i < left * S; ++i) rows[i] = value;
  for (int64_t i = right * S; i < int64_t(count) * S; ++i) rows[i] = value;
}

// Where a padded signal reads its samples: the first and last ones, mirrored or repeated.
TS_INLINE int64_t reflected(int64_t i, int64_t last) {
  i = i < 0 ? -i : i;
  return i > last ? 2 * last - i : i;
}
TS_INLINE int64_t symmetric(int64_t i, int64_t last) {
  i = i < 0 ? -1 - i : i;
  return i > last ? 2 * last + 1 - i : i;
}
TS_INLINE int64_t replicated(int64_t i, int64_t last) { i = i < 0 ? 0 : i; return i < last ? i : last; }

// Channels to rows, and back, in squares of 8 by 8 numbers.
#if !TS_PLAIN
TS_INLINE void turn(const real* const* from, long first, real* to, int step) {
  typedef typename Lanes<8>::T V;
  V a[8], b[8];
  TS_UNROLL for (int i = 0; i < 8; ++i) a[i] = fetch<V>(from[i] + first);
  TS_UNROLL for (int i = 0; i < 8; i += 2) {
    b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  TS_UNROLL for (int j = 0; j < 4; ++j) {
    const int i = j < 2 ? j : j + 2;
    a[i] = __builtin_shufflevector(b[i], b[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    a[i + 2] = __builtin_shufflevector(b[i], b[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  TS_UNROLL for (int i = 0; i < 4; ++i) {
    b[i] = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    b[i + 4] = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  TS_UNROLL for (int i = 0; i < 8; ++i) put<V>(to + i * step, b[i]);
}
#endif
template <int C, int S> TS_INLINE void gather(const real* const* in, int64_t from, real* rows, int count) {
  int done = 0;
#if !TS_PLAIN
  if constexpr (C % 8 == 0)
    for (; done + 8 <= count; done += 8)
      for (int c = 0; c < C; c += 8) turn(in + c, from + done, rows + done * S + c, S);
#endif
  for (int c = 0; c < C; ++c)
    for (int i = done; i < count; ++i) rows[i * S + c] = in[c][from + i];
}
template <int C, int S> TS_INLINE void scatter(const real* rows, real* const* out, int64_t to, int count) {
  int done = 0;
#if !TS_PLAIN
  if constexpr (C % 8 == 0)
    for (; done + 8 <= count; done += 8)
      for (int c = 0; c < C; c += 8) {
        const real* lines[8];
        real square[64];
        TS_UNROLL for (int i = 0; i < 8; ++i) lines[i] = rows + (done + i) * S + c;
        turn(lines, 0, square, 8);
        for (int j = 0; j < 8; ++j) std::memcpy(out[c + j] + to + done, square + 8 * j, sizeof(real) * 8);
      }
#endif
  for (int c = 0; c < C; ++c)
    for (int i = done; i < count; ++i) out[c][to + i] = rows[i * S + c];
}

// Numbers too small to be any against others cost a processor ten times as long: they are zeros while a net runs.
struct Quiet {
#if !TS_PLAIN && defined(__SSE__)
  unsigned kept = __builtin_ia32_stmxcsr();
  Quiet() { __builtin_ia32_ldmxcsr(kept | 0x8040u); }
  ~Quiet() { __builtin_ia32_ldmxcsr(kept); }
#elif !TS_PLAIN && defined(__aarch64__)
  uint64_t kept;
  Quiet() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(kept));
    __asm__ volatile("msr fpcr, %0" : : "r"(kept | (uint64_t(1) << 24)));
  }
  ~Quiet() { __asm__ volatile("msr fpcr, %0" : : "r"(kept)); }
#else
  Quiet() {}
#endif
};

// Products of few rows with weights that the memory is slow to bring, which asks for them well ahead.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

namespace torchstreamer_few_rows {

constexpr int64_t WIDTH = 16;   // columns of a panel
constexpr int64_t AHEAD = 512;  // floats

#if defined(__AVX512F__)
constexpr int TILE = 16;  // rows whose sums are in registers
struct Sums {
    __m512 v;
    void clear() { v = _mm512_setzero_ps(); }
    void add(float x, const Sums& w) { v = _mm512_fmadd_ps(_mm512_set1_ps(x), w.v, v); }
    void add(const Sums& s) { v = _mm512_add_ps(v, s.v); }
    void load(const float* p) { v = _mm512_loadu_ps(p); }
    void store(float* p) const { _mm512_storeu_ps(p, v); }
};
#else
constexpr int TILE = 6;
struct Sums {
    __m256 a, b;
    void clear() { a = b = _mm256_setzero_ps(); }
    void add(float x, const Sums& w) {
        const __m256 v = _mm256_broadcast_ss(&x);
        a = _mm256_fmadd_ps(v, w.a, a);
        b = _mm256_fmadd_ps(v, w.b, b);
    }
    void add(const Sums& s) { a = _mm256_add_ps(a, s.a), b = _mm256_add_ps(b, s.b); }
    void load(const float* p) { a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + 8); }
    void store(float* p) const { _mm256_storeu_ps(p, a), _mm256_storeu_ps(p + 8, b); }
};
#endif

// Rows of y over one panel of columns: x lies inner index first, with R rows side by side.
template <int R>
__attribute__((optimize("O3"))) void panel(
    const float* __restrict w, const float* __restrict x, float* __restrict y, int64_t inner, int64_t columns, int64_t width
) {
    constexpr int CHAINS = R > 4 ? 1 : R > 2 ? 2 : R > 1 ? 4 : 8;  // sums that do not wait for each other
    Sums sums[CHAINS][R], weights;
#pragma GCC unroll 16
    for (int c = 0; c < CHAINS; ++c)
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sums[c][r].clear();
    int64_t k = 0;
    for (; k + CHAINS <= inner; k += CHAINS) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; ++c) {
            const float* p = w + WIDTH * (k + c);
            __builtin_prefetch(p + AHEAD);
            weights.load(p);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) sums[c][r].add(x[(k + c) * R + r], weights);
        }
    }
    for (; k < inner; ++k) {
        weights.load(w + WIDTH * k);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) sums[0][r].add(x[k * R + r], weights);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int c = 1; c < CHAINS; ++c) sums[0][r].add(sums[c][r]);
        if (width == WIDTH) {
            sums[0][r].store(y + r * columns);
        } else {
            float last[WIDTH];
            sums[0][r].store(last);
            for (int64_t j = 0; j < width; ++j) y[r * columns + j] = last[j];
        }
    }
}

// The same for a number of rows that is known when it runs.
template <int R>
void rows(
    int n, const float* w, const float* x, float* y, int64_t inner, int64_t columns, int64_t width
) {
    if (n == R) return panel<R>(w, x, y, inner, columns, width);
    if constexpr (R > 1) rows<R - 1>(n, w, x, y, inner, columns, width);
}

// A matrix that lies in any way.
struct Rows {
    const float* values;
    int64_t row, column;  // strides
};

// So many rows from one on, with the inner index first.
__attribute__((optimize("O3"))) inline void turn(Rows x, int64_t from, int64_t n, int64_t inner, float* out) {
    const float* first = x.values + from * x.row;
    int64_t k = 0;
    if (n % 4 == 0 && x.column == 1) {
        for (; k + 4 <= inner; k += 4) {
            for (int64_t r = 0; r < n; r += 4) {
                const float* p = first + r * x.row + k;
                __m128 a = _mm_loadu_ps(p), b = _mm_loadu_ps(p + x.row);
                __m128 c = _mm_loadu_ps(p + 2 * x.row), d = _mm_loadu_ps(p + 3 * x.row);
                _MM_TRANSPOSE4_PS(a, b, c, d);
                float* to = out + k * n + r;
                _mm_storeu_ps(to, a), _mm_storeu_ps(to + n, b), _mm_storeu_ps(to + 2 * n, c), _mm_storeu_ps(to + 3 * n, d);
            }
        }
    }
    for (; k < inner; ++k)
        for (int64_t r = 0; r < n; ++r) out[k * n + r] = first[r * x.row + k * x.column];
}

// y [count, columns] = x [count, inner] · weights, which lie in panels [columns / 16, inner, 16]; false without memory.
inline bool product(Rows x, const float* weights, float* y, int64_t count, int64_t inner, int64_t columns) {
    std::unique_ptr<float[]> turned;
    const float* from = x.values;
    if (count > 1 || x.column != 1) {
        turned.reset(new (std::nothrow) float[count * inner]);
        if (!turned) return false;
        for (int64_t r = 0; r < count; r += TILE)
            turn(x, r, std::min<int64_t>(count - r, TILE), inner, turned.get() + r * inner);
        from = turned.get();
    }
#pragma omp parallel for num_threads(THREADS) if (THREADS > 1)
    for (int64_t j = 0; j < columns; j += WIDTH) {
        const int64_t width = std::min(columns - j, WIDTH);
        for (int64_t r = 0; r < count; r += TILE) {
            const int n = static_cast<int>(std::min<int64_t>(count - r, TILE));
            rows<TILE>(n, weights + j * inner, from + r * inner, y + r * columns + j, inner, columns, width);
        }
    }
    return true;
}

}  // namespace torchstreamer_few_rows

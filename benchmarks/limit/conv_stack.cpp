// The limit of the benchmark: a stack of (Conv1d(64, 64, 3, dilation) + ReLU), streamed by a loop written for it alone.
//
// Samples lie time-major, a row of 64 channels each. A layer keeps its input in one stretch of rows: the last 2 * dilation
// rows, then the new ones; when the stretch is full, the former move to its front. So a window is three rows at known
// distances, nothing is copied for it, and a layer writes straight into the stretch of the next one.
//
// The product is a tile of rows by channels in registers: for each tap and input channel, some vectors of weights, and
// one sample of each row spread over a vector. Long chunks go through all layers in blocks that stay in the cache.
//
//   g++ -O3 -march=native -ffast-math -shared -fPIC -o conv_stack.so conv_stack.cpp

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace {

constexpr int C = 64;       // channels, in and out
constexpr int TAPS = 3;
constexpr int BLOCK = 48;   // rows that go through all layers at once; tiles of 6 rows fit
constexpr int ROWS = 6;     // of a tile

#ifdef __AVX512F__
constexpr int LANES = 16, VECTORS = 4;  // of a tile: 24 sums in 32 registers
#else
constexpr int LANES = 8, VECTORS = 2;  // 12 sums in 16 registers
#endif
constexpr int WIDTH = LANES * VECTORS;  // output channels of a tile
constexpr int GROUPS = C / WIDTH;

typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
typedef float Eight __attribute__((vector_size(8 * sizeof(float)), aligned(4)));

struct Free {
  void operator()(float* p) const { std::free(p); }
};
using Floats = std::unique_ptr<float[], Free>;

Floats floats(std::size_t count) {
  // aligned_alloc wants whole multiples of the alignment
  float* p = static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64));
  std::memset(p, 0, count * sizeof(float));
  return Floats(p);
}

struct Layer {
  std::int64_t dilation, history, rows;  // rows: that the stretch has room for
  std::int64_t used;                     // rows in it before the new ones, at least `history`
  Floats weight;                         // [GROUPS][TAPS][C in][WIDTH]
  Floats bias;                           // [C]
  Floats stretch;                        // [rows][C]

  // Where the next `count` rows of input go.
  float* room(std::int64_t count) {
    if (used + count > rows) {
      std::memmove(stretch.get(), &stretch[(used - history) * C], history * C * sizeof(float));
      used = history;
    }
    return &stretch[used * C];
  }
};

// `R` rows of output from the rows at `x`, `x + step` and `x + 2 * step`.
template <int R>
inline void tile(const float* x, std::int64_t step, const float* weight, const float* bias, float* y) {
  // A single row has too few sums to keep the multipliers busy: it sums its taps apart.
  constexpr int APART = R == 1 ? TAPS : 1;
  Vector sum[APART][R][VECTORS];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < VECTORS; ++v) {
      sum[0][r][v] = *reinterpret_cast<const Vector*>(bias + v * LANES);
      for (int a = 1; a < APART; ++a) sum[a][r][v] = Vector{};
    }
  for (int tap = 0; tap < TAPS; tap += APART) {
    const float* row = x + tap * step;
    const float* w = weight + tap * C * WIDTH;
#pragma GCC unroll 2
    for (int c = 0; c < C; ++c) {
#pragma GCC unroll 3
      for (int a = 0; a < APART; ++a) {
        Vector ws[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v)
          ws[v] = *reinterpret_cast<const Vector*>(w + (a * C + c) * WIDTH + v * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
          const float sample = row[a * step + r * C + c];
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; ++v) sum[a][r][v] += sample * ws[v];
        }
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < VECTORS; ++v) {
      Vector s = sum[0][r][v];
      for (int a = 1; a < APART; ++a) s += sum[a][r][v];
      *reinterpret_cast<Vector*>(y + r * C + v * LANES) = s > 0 ? s : Vector{};
    }
}

void layer_rows(const Layer& layer, const float* x, float* y, std::int64_t count) {
  const std::int64_t step = layer.dilation * C;
  for (int g = 0; g < GROUPS; ++g) {
    const float* weight = &layer.weight[g * TAPS * C * WIDTH];
    const float* bias = &layer.bias[g * WIDTH];
    // As many tiles as needed, of as equal heights as can be.
    std::int64_t tiles = (count + ROWS - 1) / ROWS;
    for (std::int64_t t = 0, left = count; left > 0; --tiles) {
      const std::int64_t height = (left + tiles - 1) / tiles;
      const float* from = x + t * C;
      float* to = y + t * C + g * WIDTH;
      switch (height) {
        case 1: tile<1>(from, step, weight, bias, to); break;
        case 2: tile<2>(from, step, weight, bias, to); break;
        case 3: tile<3>(from, step, weight, bias, to); break;
        case 4: tile<4>(from, step, weight, bias, to); break;
        case 5: tile<5>(from, step, weight, bias, to); break;
        default: tile<6>(from, step, weight, bias, to);
      }
      t += height;
      left -= height;
    }
  }
}

// 8 by 8 floats from rows `from_step` apart to columns `to_step` apart.
inline void turn_8x8(const float* from, std::int64_t from_step, float* to, std::int64_t to_step) {
  Eight a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = *reinterpret_cast<const Eight*>(from + i * from_step);
  for (int i = 0; i < 8; i += 2) {
    b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i : {0, 1, 4, 5}) {
    a[i] = __builtin_shufflevector(b[i], b[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    a[i + 2] = __builtin_shufflevector(b[i], b[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  for (int i = 0; i < 4; ++i) {
    b[i] = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    b[i + 4] = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  for (int i = 0; i < 8; ++i) *reinterpret_cast<Eight*>(to + i * to_step) = b[i];
}

// `rows` by `columns` floats to their transpose.
void turn(const float* from, std::int64_t from_step, float* to, std::int64_t to_step, std::int64_t rows,
          std::int64_t columns) {
  const std::int64_t r8 = rows / 8 * 8, c8 = columns / 8 * 8;
  for (std::int64_t r = 0; r < r8; r += 8)
    for (std::int64_t c = 0; c < c8; c += 8) turn_8x8(from + r * from_step + c, from_step, to + c * to_step + r, to_step);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = r < r8 ? c8 : 0; c < columns; ++c) to[c * to_step + r] = from[r * from_step + c];
}

struct Stack {
  std::vector<Layer> layers;
  Floats out = floats(BLOCK * C);
  std::int64_t context = 0;  // samples before the first output
  std::int64_t seen = 0;

  // Outputs that `n` samples more give.
  std::int64_t outputs(std::int64_t n) const {
    return std::max<std::int64_t>(0, seen + n - context) - std::max<std::int64_t>(0, seen - context);
  }

  std::int64_t step(const float* x, float* y, std::int64_t n) {
    const std::int64_t total = outputs(n);
    for (std::int64_t done = 0, written = 0; done < n;) {
      const std::int64_t count = std::min<std::int64_t>(BLOCK, n - done);
      float* to = layers[0].room(count);
      turn(x + done, n, to, C, C, count);
      for (std::size_t i = 0; i < layers.size(); ++i) {
        Layer& layer = layers[i];
        const float* from = to - layer.history * C;
        layer.used += count;
        to = i + 1 < layers.size() ? layers[i + 1].room(count) : out.get();
        layer_rows(layer, from, to, count);
      }
      // The zeros before the signal are no part of it: what they gave is left out.
      const std::int64_t fresh = outputs(count);
      turn(&out[(count - fresh) * C], C, y + written, total, fresh, C);
      seen += count;
      written += fresh;
      done += count;
    }
    return total;
  }
};

}  // namespace

extern "C" {

// A new stream; `weights[i]` is a layer's [64 out][64 in][3], `biases[i]` its [64].
void* limit_create(std::int64_t count, const std::int64_t* dilations, const float* const* weights,
                   const float* const* biases) {
  auto* stack = new Stack;
  for (std::int64_t i = 0; i < count; ++i) {
    Layer layer{};
    layer.dilation = dilations[i];
    layer.history = (TAPS - 1) * dilations[i];
    layer.rows = layer.history + std::max<std::int64_t>(layer.history, BLOCK);
    layer.used = layer.history;
    layer.weight = floats(C * TAPS * C);
    for (int tap = 0; tap < TAPS; ++tap)
      for (int in = 0; in < C; ++in)
        for (int out = 0; out < C; ++out)
          layer.weight[((out / WIDTH * TAPS + tap) * C + in) * WIDTH + out % WIDTH] = weights[i][(out * C + in) * TAPS + tap];
    layer.bias = floats(C);
    std::copy_n(biases[i], C, layer.bias.get());
    layer.stretch = floats(layer.rows * C);
    stack->context += layer.history;
    stack->layers.push_back(std::move(layer));
  }
  return stack;
}

// Takes [64][n], writes what is ready as [64][m] and returns m. Rows lie without gaps.
std::int64_t limit_step(void* stack, const float* x, float* y, std::int64_t n) {
  return static_cast<Stack*>(stack)->step(x, y, n);
}

// The same chunk so many times.
void limit_repeat(void* stack, const float* x, float* y, std::int64_t n, std::int64_t calls) {
  for (std::int64_t i = 0; i < calls; ++i) static_cast<Stack*>(stack)->step(x, y, n);
}

void limit_destroy(void* stack) { delete static_cast<Stack*>(stack); }
}

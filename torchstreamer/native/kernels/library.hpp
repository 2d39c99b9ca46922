
// For torchstreamer: so many of these nets side by side, each for a row of a batch.
extern "C" {
int64_t torchstreamer_bytes() { return sizeof(@NAME@); }
int64_t torchstreamer_state_bytes() { return @NAME@::state_bytes; }
void torchstreamer_begin(void* nets, int64_t rows, const void* weights) {
  (void)weights;
  for (int64_t row = 0; row < rows; ++row) {
    @NAME@* const net = new (static_cast<@NAME@*>(nets) + row) @NAME@;
    (void)net;
    @GIVES@
  }
}
void torchstreamer_save(const void* nets, int64_t rows, char* to) {
  for (int64_t row = 0; row < rows; ++row) static_cast<const @NAME@*>(nets)[row].save(to + row * @NAME@::state_bytes);
}
int torchstreamer_load(void* nets, int64_t rows, const char* from) {
  for (int64_t row = 0; row < rows; ++row)
    if (!static_cast<@NAME@*>(nets)[row].load(from + row * @NAME@::state_bytes)) return 0;
  return 1;
}
// Takes `in[row][channel][n]`, ends the signals if `ends`, and gives how many samples of `out[row][channel][length]` were
// written, which is the same for all rows, or -1 where it is not, or where the signals cannot end here.
int64_t torchstreamer_run(void* nets, int64_t rows, const @REAL@* in, int n, int ends, @REAL@* out, int64_t length) {
  constexpr int taken = @TAKEN@, made = @MADE@;
  const @REAL@* ins[taken];
  @REAL@* outs[made];
  int64_t first = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int c = 0; c < taken; ++c) ins[c] = in + (row * taken + c) * n;
    for (int c = 0; c < made; ++c) outs[c] = out + (row * made + c) * length;
    @NAME@& net = static_cast<@NAME@*>(nets)[row];
    int64_t count = n > 0 ? net.process(ins, n, outs) : 0;
    if (ends) {
      for (int c = 0; c < made; ++c) outs[c] += count;
      const int more = net.flush(outs);
      if (more < 0) return -1;
      count += more;
    }
    if (row == 0) first = count;
    if (count != first) return -1;
  }
  return first;
}
}

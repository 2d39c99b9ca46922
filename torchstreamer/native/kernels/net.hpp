// Its constants have an address of this net alone, also beside another class of this name in the same process.
inline namespace @SMALL@_@ID@ {
struct @NAME@ {
  typedef @REAL@ real;
  static constexpr int hop = @HOP@;        // samples of the first input after which outputs come
  static constexpr int ratio[2] = {@RATIO@};  // samples out per samples in
  static constexpr int latency = @LAG@;    // samples out by which the first output lags behind
  static constexpr int rate_hz = @RATE@;    // samples in per second; 0: not known
  static constexpr int length_multiple = @MULTIPLE@;
  static constexpr int inputs = @INPUTS@, outputs = @OUTPUTS@;
  static constexpr int channels_in[] = {@CHANNELS_IN@};
  static constexpr int channels_out[] = {@CHANNELS_OUT@};
  static constexpr const char* names_in[] = {@NAMES_IN@};

  // The most samples of an output that `process` gives for `n`, and `flush`.
  static constexpr int most(int n, int output = 0) {
    constexpr int rates[] = {@RATES@};
    return (n / hop + 1) * rates[output];
  }
  static constexpr int most_at_end[] = {@MOST_AT_END@};

  @NAME@() { reset(); }

  // Begin a new signal.
  void reset() {
    @FINDS@
    std::memset(static_cast<void*>(&state), 0, sizeof state);
    state.total = @SPACE@::OPEN;
    @STARTS@
  }

  // Take `n` samples of each channel, `in[channel][sample]`, the channels of all inputs one after the other; of further
  // inputs as many as belong to them. Gives how many samples were written to each channel of the first output; `given`
  // has those of all. Any `n` will do, 0 too.
  int process(const real* const* in, int n, real* const* out) {
    Quiet quiet;
    for (int& each : given) each = 0;
    @NEEDS@
    for (int taken = 0; taken < n;) {
      const int64_t room = @BLOCK@ * hop - (state.came - state.hops * hop);
      const int m = n - taken < room ? n - taken : int(room);
      receive(in, taken, m);
      taken += m;
      const int k = int((state.came - state.hops * hop) / hop);
      if (k > 0) step(k, out);
    }
    return given[0];
  }

  // End the signal: gives the samples that are left, as `process` does, and begins a new one. -1, and nothing, if its
  // length is no multiple of `length_multiple`.
  int flush(real* const* out) {
    Quiet quiet;
    for (int& each : given) each = 0;
    if (@LACKS@state.came % length_multiple != 0) {
      reset();
      return -1;
    }
    state.total = state.came;
    const int64_t last = hops_in_all();
    while (state.hops < last) {
      const int k = last - state.hops < @BLOCK@ ? int(last - state.hops) : @BLOCK@;
      silence(k);
      step(k, out);
    }
    reset();
    return given[0];
  }

  // The state of the signal, `state_bytes` bytes, which fits this very net alone, on every machine: `load` says whether
  // it did.
  static constexpr int state_bytes = @STATE_BYTES@;
  void save(void* to) const {
    char* const place = static_cast<char*>(to);
    const uint32_t mark[2] = {@MARK@, 0};
    std::memset(place, 0, state_bytes);
    std::memcpy(place, &state.came, 8);
    std::memcpy(place + 8, mark, 8);
    @SAVES@
  }
  bool load(const void* from) {
    const char* const place = static_cast<const char*>(from);
    int64_t came;
    uint32_t mark;
    std::memcpy(&came, place, 8);
    std::memcpy(&mark, place + 8, 4);
    if (mark != @MARK@ || came < 0 || came >= int64_t(1) << 50) return false;
    reset();
    state.came = came;
    state.hops = came / hop;
    @LOADS@
    return true;
  }

  @WEIGHTS@
  int given[outputs] = {};  // samples of each output that the last call gave

 private:
  typedef torchstreamer_@REAL@::Quiet Quiet;

  struct State {
    int64_t came, hops, total;  // samples that came, hops that were done, and the length of the signal
    @STATE@
  } state;
  @SCRATCH@

  // Put samples behind those that wait.
  void receive(const real* const* in, int64_t from, int m) {
    @RECEIVE@
    state.came += m;
  }

  // Fill so many hops up with zeros.
  void silence(int k) {
    @SILENCE@
    state.came = (state.hops + k) * hop;
  }

  // Hops until all outputs of a signal have come.
  int64_t hops_in_all() const {
    int64_t last = state.hops;
    @ENDS@
    return last;
  }

  // So many hops, which wait.
  void step(int k, real* const* out) {
    using namespace @SPACE@;
    const int64_t at = state.hops;
    @STEP@
    state.hops += k;
  }
};
}  // namespace @SMALL@_@ID@

// For other languages.
#include <new>
extern "C" {
@INLINE@void* @SMALL@_new() { return new (std::nothrow) @NAME@(); }
@INLINE@void @SMALL@_delete(void* net) { delete static_cast<@NAME@*>(net); }
@ASKS@
@INLINE@void @SMALL@_reset(void* net) { static_cast<@NAME@*>(net)->reset(); }
@INLINE@int @SMALL@_process(void* net, const @REAL@* const* in, int n, @REAL@* const* out) {
  return static_cast<@NAME@*>(net)->process(in, n, out);
}
@INLINE@int @SMALL@_flush(void* net, @REAL@* const* out) { return static_cast<@NAME@*>(net)->flush(out); }
@INLINE@int @SMALL@_given(void* net, int output) { return static_cast<@NAME@*>(net)->given[output]; }
@INLINE@int @SMALL@_most(int n, int output) { return @NAME@::most(n, output); }
@INLINE@int @SMALL@_most_at_end(int output) { return @NAME@::most_at_end[output]; }
@INLINE@int @SMALL@_channels_in(int input) { return @NAME@::channels_in[input]; }
@INLINE@int @SMALL@_channels_out(int output) { return @NAME@::channels_out[output]; }
@INLINE@int @SMALL@_state_bytes() { return @NAME@::state_bytes; }
@INLINE@void @SMALL@_save(void* net, void* to) { static_cast<@NAME@*>(net)->save(to); }
@INLINE@int @SMALL@_load(void* net, const void* from) { return static_cast<@NAME@*>(net)->load(from); }
}

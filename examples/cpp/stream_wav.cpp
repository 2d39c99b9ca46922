// Streams a WAV file through a scripted stream, block by block, and writes what comes out.
//
//   stream_wav STREAM.pt IN.wav OUT.wav [BLOCK]
//
// STREAM.pt holds torch.jit.script(pts.create_stream(net)), kept with torch.jit.save. The samples are 16-bit integers or
// 32-bit floats, in any number of channels; the output has the same kind. Each block is one chunk [channels, samples].

#include <ATen/Parallel.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/runtime/jit_exception.h>
#include <torch/script.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

static_assert(std::endian::native == std::endian::little, "WAV samples are read and written as they lie in memory");

namespace {

constexpr std::int64_t kBlock = 1024;  // samples per chunk, unless told
constexpr std::int64_t kLongestBlock = 1 << 24;
constexpr std::int64_t kMostBytes = 0xFFFFFFFF - 64;  // of samples, so that all sizes fit into 32 bits
constexpr std::uint16_t kPcm = 1, kFloat = 3, kExtensible = 0xFFFE;

struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Format {
  std::uint16_t code = 0;  // kPcm with 16 bits or kFloat with 32
  std::uint16_t channels = 0;
  std::uint32_t rate_hz = 0;

  std::uint16_t sample_bytes() const { return code == kPcm ? 2 : 4; }
  std::uint32_t frame_bytes() const { return std::uint32_t{channels} * sample_bytes(); }
};

// The number of type `T` at an address of any alignment.
template <typename T>
T number(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

Format parse_format(const std::vector<char>& chunk, const std::string& path) {
  // What follows the code in the GUID of an extensible format.
  constexpr std::array<unsigned char, 14> kGuid = {0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71};
  if (chunk.size() < 16) throw Failure(path + ": its format chunk is cut short");
  Format format;
  format.code = number<std::uint16_t>(&chunk[0]);
  format.channels = number<std::uint16_t>(&chunk[2]);
  format.rate_hz = number<std::uint32_t>(&chunk[4]);
  const auto frame_bytes = number<std::uint16_t>(&chunk[12]);
  const auto bits = number<std::uint16_t>(&chunk[14]);
  if (format.code == kExtensible) {
    if (chunk.size() < 40 || std::memcmp(&chunk[26], kGuid.data(), kGuid.size()) != 0)
      throw Failure(path + ": an extensible format that is neither PCM nor floats");
    format.code = number<std::uint16_t>(&chunk[24]);
  }
  if (!(format.code == kPcm && bits == 16) && !(format.code == kFloat && bits == 32))
    throw Failure(path + ": samples of format " + std::to_string(format.code) + " with " + std::to_string(bits) +
                  " bits came; 16-bit integers (format 1) or 32-bit floats (format 3) are read");
  if (format.channels == 0 || format.rate_hz == 0 || frame_bytes != format.frame_bytes())
    throw Failure(path + ": its format chunk contradicts itself: " + std::to_string(format.channels) + " channels, " +
                  std::to_string(bits) + " bits, " + std::to_string(frame_bytes) + " bytes per frame, " +
                  std::to_string(format.rate_hz) + " Hz");
  return format;
}

class WavReader {
 public:
  explicit WavReader(const std::string& path) : path_(path), file_(path, std::ios::binary) {
    if (!file_) throw Failure(path + ": cannot be opened");
    const auto head = bytes(12, "no WAV file");
    if (std::memcmp(&head[0], "RIFF", 4) != 0 || std::memcmp(&head[8], "WAVE", 4) != 0)
      throw Failure(path + ": no WAV file (RIFF and WAVE are missing)");
    // Chunk by chunk until the samples; the ones we do not know are skipped.
    for (bool known = false;;) {
      const auto chunk = bytes(8, known ? "it has no data chunk" : "it has no format chunk");
      const std::string_view id(chunk.data(), 4);
      const std::uint32_t size = number<std::uint32_t>(&chunk[4]);
      if (id == "data") {
        if (!known) throw Failure(path + ": it has no format chunk before the samples");
        begin_samples(size);
        return;
      }
      if (id == "fmt ") {
        if (size > 4096) throw Failure(path + ": its format chunk is too long");
        format_ = parse_format(bytes(size, "its format chunk is cut short"), path);
        known = true;
        file_.ignore(size % 2);
      } else {
        file_.ignore(std::int64_t{size} + size % 2);  // an odd chunk is followed by a byte of padding
      }
    }
  }

  const Format& format() const { return format_; }
  std::int64_t length() const { return length_; }

  // The next `most` samples or what is left of them, as floats [channels, samples].
  at::Tensor read(std::int64_t most) {
    const std::int64_t count = std::min(most, length_ - position_);
    const auto raw = bytes(count * format_.frame_bytes(), "its samples are cut short");
    position_ += count;
    auto frames = torch::empty({count, format_.channels}, torch::kFloat32);
    float* x = frames.data_ptr<float>();
    if (format_.code == kFloat) {
      std::memcpy(x, raw.data(), raw.size());
    } else {
      for (std::int64_t i = 0; i < frames.numel(); ++i) x[i] = number<std::int16_t>(&raw[2 * i]) / 32768.0f;
    }
    return frames.t().contiguous();
  }

 private:
  std::vector<char> bytes(std::int64_t count, const std::string& else_message) {
    std::vector<char> data(count);
    file_.read(data.data(), count);
    if (file_.gcount() != count) throw Failure(path_ + ": " + else_message);
    return data;
  }

  void begin_samples(std::uint32_t size) {
    const auto here = file_.tellg();
    file_.seekg(0, std::ios::end);
    const std::int64_t left = file_.tellg() - here;
    file_.seekg(here);
    if (left < size)
      throw Failure(path_ + ": its samples are cut short: " + std::to_string(size) + " bytes are announced, " +
                    std::to_string(left) + " are there");
    if (size % format_.frame_bytes() != 0) throw Failure(path_ + ": its samples end amid a frame");
    length_ = size / format_.frame_bytes();
  }

  std::string path_;
  std::ifstream file_;
  Format format_;
  std::int64_t length_ = 0, position_ = 0;
};

class WavWriter {
 public:
  WavWriter(const std::string& path, const Format& format)
      : path_(path), file_(path, std::ios::binary | std::ios::trunc), format_(format) {
    if (!file_) throw Failure(path + ": cannot be written");
    write_header();
  }

  // Takes floats [channels, samples].
  void write(const at::Tensor& y) {
    const auto frames = y.t().contiguous();
    const float* x = frames.data_ptr<float>();
    const std::int64_t count = frames.numel();
    if ((length_ + y.size(1)) * format_.frame_bytes() > kMostBytes)
      throw Failure(path_ + ": more samples came out than a WAV file can hold");
    length_ += y.size(1);
    if (format_.code == kFloat) {
      file_.write(reinterpret_cast<const char*>(x), count * 4);
    } else {
      std::vector<std::int16_t> rounded(count);
      for (std::int64_t i = 0; i < count; ++i) {
        const float scaled = std::nearbyint(x[i] * 32768.0f);
        const float fits = std::isnan(scaled) ? 0.0f : std::clamp(scaled, -32768.0f, 32767.0f);
        clipped_ += fits != scaled;
        rounded[i] = static_cast<std::int16_t>(fits);
      }
      file_.write(reinterpret_cast<const char*>(rounded.data()), count * 2);
    }
  }

  // Writes the sizes, which are known now.
  void finish() {
    const std::int64_t size = length_ * format_.frame_bytes();
    if (size % 2) file_.put(0);
    file_.seekp(0);
    write_header();
    file_.close();
    if (!file_) throw Failure(path_ + ": could not be written; is the disk full?");
  }

  const Format& format() const { return format_; }
  std::int64_t length() const { return length_; }
  std::int64_t clipped() const { return clipped_; }

 private:
  template <typename T>
  void put(T value) {
    file_.write(reinterpret_cast<const char*>(&value), sizeof value);
  }

  void write_header() {
    const bool floats = format_.code == kFloat;  // they want the longer format chunk and a fact chunk
    const std::uint32_t data = static_cast<std::uint32_t>(length_ * format_.frame_bytes());
    file_.write("RIFF", 4);
    put<std::uint32_t>(4 + (floats ? 26 + 12 : 24) + 8 + data + data % 2);
    file_.write("WAVEfmt ", 8);
    put<std::uint32_t>(floats ? 18 : 16);
    put<std::uint16_t>(format_.code);
    put<std::uint16_t>(format_.channels);
    put<std::uint32_t>(format_.rate_hz);
    put<std::uint32_t>(format_.rate_hz * format_.frame_bytes());
    put<std::uint16_t>(static_cast<std::uint16_t>(format_.frame_bytes()));
    put<std::uint16_t>(static_cast<std::uint16_t>(8 * format_.sample_bytes()));
    if (floats) {
      put<std::uint16_t>(0);
      file_.write("fact", 4);
      put<std::uint32_t>(4);
      put<std::uint32_t>(static_cast<std::uint32_t>(length_));
    }
    file_.write("data", 4);
    put<std::uint32_t>(data);
  }

  std::string path_;
  std::ofstream file_;
  Format format_;
  std::int64_t length_ = 0, clipped_ = 0;
};

// The rate of what comes out: the stream's ratio is outputs per input, a pair of integers.
std::uint32_t rate_out(const torch::jit::Module& stream, std::uint32_t rate_hz) {
  if (!stream.hasattr("ratio")) return rate_hz;
  const auto ratio = stream.attr("ratio").toTuple();
  const double outputs = ratio->elements()[0].toInt(), inputs = ratio->elements()[1].toInt();
  return static_cast<std::uint32_t>(std::lround(rate_hz * outputs / inputs));
}

void run(const std::string& stream_path, const std::string& in_path, const std::string& out_path, std::int64_t block) {
  if (!std::filesystem::exists(stream_path)) throw Failure(stream_path + ": cannot be opened");
  torch::jit::Module stream;
  try {
    stream = torch::jit::load(stream_path, torch::kCPU);
  } catch (const c10::Error&) {
    throw Failure(stream_path + ": no module kept with torch.jit.save");
  }
  if (!stream.find_method("flush") || !stream.find_method("reset"))
    throw Failure(stream_path + ": no scripted stream; keep torch.jit.script(pts.create_stream(net)), not the net");
  // From here on: parameters that are loaded in this mode cannot tell that they have not changed, and the stream would
  // pack its weights anew with every block.
  const c10::InferenceMode inference;
  WavReader in(in_path);
  std::error_code none;
  if (std::filesystem::equivalent(in_path, out_path, none)) throw Failure(out_path + ": is the input too");

  std::unique_ptr<WavWriter> out;  // its channels are known when the first samples come out
  const auto keep = [&](const c10::IValue& answer) {
    if (answer.isNone()) return;  // nothing is settled yet
    if (!answer.isTensor()) throw Failure(stream_path + ": gives more than one output");
    const auto y = answer.toTensor();
    if (y.dim() != 2 || y.scalar_type() != torch::kFloat32 || y.size(0) > 0xFFFF / 4)
      throw Failure(stream_path + ": gives no float32 samples [channels, time]");
    if (!out) {
      const auto channels = static_cast<std::uint16_t>(y.size(0));
      const Format format{in.format().code, channels, rate_out(stream, in.format().rate_hz)};
      out = std::make_unique<WavWriter>(out_path, format);
    }
    out->write(y);
  };

  try {
    // The first calls load code and set things up: spend them on silence.
    stream.run_method("reset");
    stream.forward({torch::zeros({in.format().channels, std::min(block, in.length())}), false});
    stream.run_method("flush");

    double seconds = 0, slowest = 0;  // inside the stream, the file left out
    const auto timed = [&](auto&& call) {
      const auto begin = std::chrono::steady_clock::now();
      const c10::IValue answer = call();
      const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
      seconds += taken.count();
      slowest = std::max(slowest, taken.count());
      keep(answer);
    };
    for (std::int64_t done = 0; done < in.length(); done += block) {
      const auto chunk = in.read(block);
      timed([&] { return stream.forward({chunk, false}); });
    }
    timed([&] { return stream.run_method("flush"); });
    if (!out) throw Failure(in_path + ": " + std::to_string(in.length()) + " samples are too few: nothing came out");
    out->finish();

    const double duration = static_cast<double>(in.length()) / in.format().rate_hz;
    std::printf("input             %lld samples, %u channels, %u Hz, in blocks of %lld\n",
                static_cast<long long>(in.length()), in.format().channels, in.format().rate_hz,
                static_cast<long long>(block));
    std::printf("output            %lld samples, %u channels, %u Hz\n", static_cast<long long>(out->length()),
                out->format().channels, out->format().rate_hz);
    std::printf("real-time factor  %.4f (time in the stream / duration, one thread)\n", seconds / duration);
    std::printf("slowest block     %.2f ms, of %.2f ms that it lasts\n", 1e3 * slowest,
                1e3 * static_cast<double>(block) / in.format().rate_hz);
    if (out->clipped())
      std::fprintf(stderr, "stream_wav: %lld samples were too loud for 16 bits and are clipped\n",
                   static_cast<long long>(out->clipped()));
  } catch (...) {
    if (out) {  // no half file
      out.reset();
      std::filesystem::remove(out_path, none);
    }
    throw;
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::int64_t block = kBlock;
  bool usable = argc == 4 || argc == 5;
  if (argc == 5) {
    const std::string_view text = argv[4];
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), block);
    usable = error == std::errc() && end == text.data() + text.size() && block >= 1 && block <= kLongestBlock;
  }
  if (!usable) {
    std::fprintf(stderr, "usage: stream_wav STREAM.pt IN.wav OUT.wav [samples per block, 1 to %lld; %lld unless told]\n",
                 static_cast<long long>(kLongestBlock), static_cast<long long>(kBlock));
    return 2;
  }
  at::set_num_threads(1);
  // TorchScript's optimiser works for seconds in the first blocks, where a live signal cannot wait.
  const torch::jit::GraphOptimizerEnabledGuard optimiser(false);
  try {
    run(argv[1], argv[2], argv[3], block);
  } catch (const torch::jit::JITException& error) {
    // An error of the stream: its code and message, without the trace through the script.
    std::fprintf(stderr, "stream_wav: %s\n", error.getOriginalMsg().value_or(error.what()).c_str());
    return 1;
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "stream_wav: %s\n", error.what_without_backtrace());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "stream_wav: %s\n", error.what());
    return 1;
  }
  return 0;
}

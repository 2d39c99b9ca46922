// Streams a WAV file through the class of an exported header, block by block, and writes what comes out.
//
//   filter_wav IN.wav OUT.wav [BLOCK]
//
// IN.wav holds 16-bit integers, in as many channels as the class takes; OUT.wav gets the same.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "filter.hpp"

static_assert(Filter::inputs == 1 && Filter::outputs == 1, "one signal in and one out");
constexpr int kIn = Filter::channels_in[0], kOut = Filter::channels_out[0];

template <class T>
T number(const std::string& bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

template <class T>
void put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

[[noreturn]] void fail(const std::string& message) {
  std::fprintf(stderr, "filter_wav: %s\n", message.c_str());
  std::exit(1);
}

// Channels of samples between -1 and 1, and how many there are in a second.
struct Sound {
  std::vector<std::vector<float>> channels;
  std::uint32_t rate_hz = 0;
};

Sound read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.size() < 12 || bytes.compare(0, 4, "RIFF") != 0 || bytes.compare(8, 4, "WAVE") != 0)
    fail(path + ": no WAV file");
  Sound sound;
  for (std::size_t at = 12; at + 8 <= bytes.size();) {
    const std::string name = bytes.substr(at, 4);
    const std::size_t size = number<std::uint32_t>(bytes, at + 4);
    at += 8;
    if (size > bytes.size() - at) fail(path + ": it is cut short");
    if (name == "fmt " && size >= 16) {
      const auto code = number<std::uint16_t>(bytes, at), bits = number<std::uint16_t>(bytes, at + 14);
      const auto count = number<std::uint16_t>(bytes, at + 2);
      if (code != 1 || bits != 16) fail(path + ": 16-bit integers are read");
      if (count != kIn) fail(path + ": " + std::to_string(count) + " channels; " + std::to_string(kIn) + " are taken");
      sound.rate_hz = number<std::uint32_t>(bytes, at + 4);
    } else if (name == "data") {
      if (sound.rate_hz == 0) fail(path + ": no format in front of the samples");
      const std::size_t length = size / (2 * kIn);
      sound.channels.assign(kIn, std::vector<float>(length));
      for (std::size_t i = 0; i < length * kIn; ++i)
        sound.channels[i % kIn][i / kIn] = number<std::int16_t>(bytes, at + 2 * i) / 32768.0f;
      return sound;
    }
    at += size + size % 2;
  }
  fail(path + ": no samples");
}

void write(const std::string& path, const Sound& sound) {
  const std::size_t length = sound.channels[0].size();
  const auto size = static_cast<std::uint32_t>(2 * kOut * length);
  std::string bytes = "RIFF";
  put(bytes, 36 + size);
  bytes += "WAVEfmt ";
  put(bytes, std::uint32_t{16});
  put(bytes, std::uint16_t{1});
  put(bytes, std::uint16_t{kOut});
  put(bytes, sound.rate_hz);
  put(bytes, sound.rate_hz * 2 * kOut);
  put(bytes, std::uint16_t{2 * kOut});
  put(bytes, std::uint16_t{16});
  bytes += "data";
  put(bytes, size);
  for (std::size_t i = 0; i < length; ++i)
    for (const auto& channel : sound.channels)
      put(bytes, static_cast<std::int16_t>(std::clamp(std::nearbyint(channel[i] * 32768.0f), -32768.0f, 32767.0f)));
  std::ofstream file(path, std::ios::binary);
  if (!file.write(bytes.data(), static_cast<std::streamsize>(bytes.size())).flush()) fail(path + ": cannot be written");
}

int main(int argc, char** argv) {
  const int block = argc == 4 ? std::atoi(argv[3]) : 256;
  if (argc < 3 || argc > 4 || block < 1) {
    std::fprintf(stderr, "usage: filter_wav IN.wav OUT.wav [samples per block]\n");
    return 2;
  }
  const Sound in = read(argv[1]);
  if (Filter::rate_hz && in.rate_hz != Filter::rate_hz)
    fail(std::string(argv[1]) + ": " + std::to_string(in.rate_hz) + " Hz; the network was trained at " +
         std::to_string(Filter::rate_hz));
  Sound out;
  out.rate_hz = in.rate_hz / Filter::ratio[1] * Filter::ratio[0];
  out.channels.resize(kOut);

  const auto filter = std::make_unique<Filter>();  // it may be large; nothing allocates from here on in it
  const int most = std::max(Filter::most(block), Filter::most_at_end[0]);
  std::vector<std::vector<float>> room(kOut, std::vector<float>(most));
  const float* from[kIn];
  float* to[kOut];
  for (int c = 0; c < kOut; ++c) to[c] = room[c].data();
  const auto keep = [&](int count) {
    for (int c = 0; c < kOut; ++c) out.channels[c].insert(out.channels[c].end(), to[c], to[c] + count);
  };

  double seconds = 0, slowest = 0;
  const int length = static_cast<int>(in.channels[0].size());
  for (int done = 0; done < length; done += block) {
    const int n = std::min(block, length - done);
    for (int c = 0; c < kIn; ++c) from[c] = in.channels[c].data() + done;
    const auto begin = std::chrono::steady_clock::now();
    const int count = filter->process(from, n, to);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    seconds += took.count();
    slowest = std::max(slowest, took.count());
    keep(count);
  }
  const int rest = filter->flush(to);
  if (rest < 0) fail(std::string(argv[1]) + ": a multiple of " + std::to_string(Filter::length_multiple) +
                     " samples is needed");
  keep(rest);
  write(argv[2], out);
  std::printf("samples in        %d, in blocks of %d\n", length, block);
  std::printf("samples out       %d, %d late\n", static_cast<int>(out.channels[0].size()), Filter::latency);
  std::printf("real-time factor  %.5f\n", seconds * in.rate_hz / std::max(length, 1));
  std::printf("slowest block     %.3f ms\n", slowest * 1e3);
}

// The weights stand in a file, which all instances share. `weights_from` says whether it is that of this net; the first
// instance asks it for the file of this name in the folder that the program runs in, unless it was asked before.
static constexpr const char* weights_name = @FILE@;
static bool weights_from(const char* path = weights_name) {
  if (common.load() != nullptr) return true;
  constexpr size_t bytes = @BYTES@;
  std::FILE* const file = std::fopen(path, "rb");
  if (file == nullptr) return false;
  char* const room = static_cast<char*>(std::malloc(bytes + 64));
  char* const place = room == nullptr ? nullptr : room + (64 - reinterpret_cast<uintptr_t>(room) % 64) % 64;
  const bool whole = room != nullptr && std::fread(place, 1, bytes, file) == bytes && std::fgetc(file) == EOF;
  std::fclose(file);
  const real* none = nullptr;
  const bool good = whole && torchstreamer_@REAL@::checksum(place, bytes) == @CHECKSUM@u;
  // They stay while the program runs. Of two threads that come at once one throws its own away.
  if (!good || !common.compare_exchange_strong(none, reinterpret_cast<const real*>(place))) std::free(room);
  return good;
}
// Whether it has its weights. Without them nothing comes out, and `flush` gives -1.
bool ready() const { return weights != nullptr; }
static inline std::atomic<const real*> common{nullptr};
const real* weights = nullptr;


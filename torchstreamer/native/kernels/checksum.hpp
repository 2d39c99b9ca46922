
// CRC-32, as of zip files.
inline uint32_t checksum(const char* data, size_t bytes) {
  uint32_t table[256], sum = ~0u;
  for (uint32_t i = 0; i < 256; ++i) {
    table[i] = i;
    for (int k = 0; k < 8; ++k) table[i] = table[i] & 1 ? table[i] >> 1 ^ 0xEDB88320u : table[i] >> 1;
  }
  for (size_t i = 0; i < bytes; ++i) sum = table[(sum ^ static_cast<unsigned char>(data[i])) & 255] ^ sum >> 8;
  return ~sum;
}

// The fuzzer's bytes as choices. Bytes that have run out are zeros, and zero is the plain choice everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace oc::fuzz {

class Source {
 public:
  Source(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  uint64_t word() {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value = value << 8 | byte();
    return value;
  }
  size_t below(size_t count) { return count < 2 ? 0 : (count <= 256 ? byte() : byte() << 8 | byte()) % count; }
  bool flip() { return byte() & 1; }
  // True for one byte in n; not for zero.
  bool rarely(int n) { return byte() % n == n - 1; }
  template <class T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[below(choices.size())];
  }
  bool empty() const { return at_ >= size_; }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

// Contents of tensors, from one seed (SplitMix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t operator()() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t count) { return (*this)() % count; }
  float uniform(float low, float high) { return low + (high - low) * static_cast<float>((*this)() >> 40) / 16777216.f; }

 private:
  uint64_t state_;
};

}  // namespace oc::fuzz

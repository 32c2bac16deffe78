// A table of 256 bytes that a node may have.
#pragma once

#include "cuda/table.hpp"
#include "ops/cuda/device_kernel.hpp"

namespace oc {

// The constant at `index`, on the device; nothing where it is absent.
inline DeviceBuffer optional_table(const Info& info, const DeviceKernel& kernel, size_t index) {
  const auto table = info.constant(index);
  require(!table || (table->type == kU8 && table->size() == cuda::kTableBytes), "table must be 256 bytes");
  return table ? kernel.upload(table->as<uint8_t>(), cuda::kTableBytes) : DeviceBuffer();
}

}  // namespace oc

/// @file
/// DLPack (dlpack.h), as far as it is read here.
#pragma once

#include <Python.h>

#include <cstdint>

namespace exodus::python {

/// Where an array lies. Strides are in elements, and may be null for C order.
struct DlTensor {
  void* data;
  std::int32_t device_type, device_id, dimensions;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};

constexpr std::int32_t dl_cpu = 1;
constexpr std::uint8_t dl_float = 2, dl_bfloat = 4;

/// The functions by which a library tells of its arrays without a call of Python (`__dlpack_c_exchange_api__`).
struct DlExchange {
  std::uint32_t major, minor;
  const DlExchange* older;
  void *allocate, *share, *adopt;
  int (*describe)(PyObject* array, DlTensor* described);   // the array keeps what it points to; -1 with an exception set; may be null
  void* stream;

  /// That of a capsule; null if it is of another version, or cannot describe arrays.
  static const DlExchange* of(PyObject* capsule) {
    const auto* const found = static_cast<const DlExchange*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
    if (found == nullptr) PyErr_Clear();
    return found == nullptr || found->major != 1 || found->describe == nullptr ? nullptr : found;
  }
};

}   // namespace exodus::python

// EmbedLayerNorm: word + type + position embedding of every token, normalised and quantized.
#include <algorithm>
#include <utility>

#include "cpu/embedding.hpp"
#include "cpu/norm.hpp"
#include "ops/buffer.hpp"
#include "ort/op.hpp"

namespace oc {

namespace {

enum In {
  kIds, kTable, kTableScale, kTypeIds, kTypeTable, kPositionTable, kPositionIds, kGamma, kBeta, kQScale, kQZero,
  kPositionScale
};

// Ids of `count` tokens, repeated where fewer are given; an error where one is not a row of the table.
Buffer<int64_t> rows_of(const Tensor& ids, int64_t count, int64_t rows, const char* name) {
  require(ids.type == kI64 || ids.type == kI32, "ids must be int64 or int32");
  Buffer<int64_t> result(count);
  const int64_t given = ids.size();
  for (int64_t i = 0; i < count; i++) {
    const int64_t at = i % given;
    const int64_t id = ids.type == kI64 ? ids.as<int64_t>()[at] : ids.as<int32_t>()[at];
    if (id < 0 || id >= rows)
      throw Error(std::string(name) + " " + std::to_string(id) + " is not in [0, " + std::to_string(rows) + ")");
    result[i] = id;
  }
  return result;
}

struct EmbedLayerNorm : Kernel {
  Embedding tables{};
  LayerNorm shared;
  int64_t words = 0, types = 0, positions = 0, offset = 0;
  bool dynamic = false;
  Buffer<float> gamma, beta, inverse;  // padded to whole vectors

  explicit EmbedLayerNorm(const Info& info) {
    const Tensor table = info.constant(kTable, kS8, "table"), scale = info.constant(kTableScale, kF32, "table_scale"),
                 weight = info.constant(kGamma, kF32, "gamma"), bias = info.constant(kBeta, kF32, "beta");
    require(table.rank() == 2 && table.dim(1) > 0 && table.dim(1) <= 1 << 24, "table must be [V, C]");
    words = table.dim(0);
    const int64_t channels = table.dim(1);
    require(scale.size() == words, "table_scale must have one value a row of table");
    require(weight.size() == channels && bias.size() == channels, "gamma and beta must have C values");
    tables.words = table.as<int8_t>(), tables.word_scale = scale.as<float>();
    tables.channels = static_cast<int>(channels);
    tables.types = rows(info, kTypeTable, "type_table", channels, types);
    read_positions(info, channels);
    gamma = padded(weight), beta = padded(bias);
    shared.c = static_cast<int>(channels), shared.gamma = gamma.data(), shared.beta = beta.data();
    shared.epsilon = info.real("epsilon", 1e-12f);
    shared.zero_point = info.zero_point(kQZero, "q_zero_point", 0);
    offset = info.integer("position_offset", 0);
    dynamic = info.integer("dynamic", 0) != 0;
    if (const auto q_scale = info.constant(kQScale)) {
      require(q_scale->type == kF32 && (q_scale->size() == 1 || q_scale->size() == channels),
              "q_scale must have 1 or C floats");
      inverse = Buffer<float>(gamma.size());
      for (int64_t c = 0; c < channels; c++) inverse[c] = 1.f / q_scale->as<float>()[q_scale->size() == 1 ? 0 : c];
      shared.inverse = inverse.data();
    }
  }

  void compute(Context& context) override {
    const Tensor ids = context.input(kIds);
    require(ids.rank() == 2, "ids must be [batch, length]");
    const int64_t length = ids.dim(1), channels = shared.c, count = ids.size();
    const std::vector<int64_t> shape = {ids.dim(0), length, channels}, column = {ids.dim(0), length, 1};
    const Tensor y = context.output(0, shape, kF32), q = context.output(1, shape, kU8);
    require(!q.data || dynamic || shared.inverse, "q needs q_scale or dynamic = 1");
    require(dynamic || context.output_count() <= 2, "row_scale and row_zero_point need dynamic = 1");
    require(has_positions() || !context.has(kPositionTable), "position_table must be a constant");
    require(tables.position_scale || !context.has(kPositionScale), "position_scale must be a constant");
    require(shared.inverse || !context.has(kQScale), "q_scale must be a constant");
    LayerNorm result = shared;
    result.y = y.as<float>(), result.q = q.as<uint8_t>();
    Buffer<float> unread_scale;
    Buffer<uint8_t> unread_zero, unread_q;
    if (dynamic) {
      if (!result.q) unread_q = Buffer<uint8_t>(count * channels), result.q = unread_q.data();
      result.row_scale = context.output(2, column, kF32).as<float>();
      result.row_zero_point = context.output(3, column, kU8).as<uint8_t>();
      if (!result.row_scale) unread_scale = Buffer<float>(count), result.row_scale = unread_scale.data();
      if (!result.row_zero_point) unread_zero = Buffer<uint8_t>(count), result.row_zero_point = unread_zero.data();
    }
    if (count == 0) return;
    const Buffer<int64_t> word_rows = rows_of(ids, count, words, "the token id");
    const Buffer<int64_t> type_rows = type_ids(context, ids), position_rows = position_ids(context, ids);
    const Tokens tokens{word_rows.data(), type_rows.data(), position_rows.data()};
    constexpr int64_t kStep = 32;
    context.parallel((count + kStep - 1) / kStep, [&](size_t task) {
      const int64_t begin = task * kStep, end = std::min(count, begin + kStep);
      auto* sums = reinterpret_cast<float*>(scratch(0, (kStep + 4) * channels * sizeof(float)));
      embedding().sum(tables, tokens, begin, end, sums);
      LayerNorm part = result;
      part.x = sums;
      if (part.y) part.y += begin * channels;
      if (part.q) part.q += begin * channels;
      if (part.row_scale) part.row_scale += begin, part.row_zero_point += begin;
      norm().layer_norm(part, static_cast<int>(end - begin), sums + kStep * channels);
    });
  }

 private:
  static Buffer<float> padded(const Tensor& x) {
    Buffer<float> result((x.size() + 15) / 16 * 16);
    std::copy_n(x.as<float>(), x.size(), result.data());
    return result;
  }

  bool has_positions() const { return tables.positions || tables.position_bytes; }

  // Floats, or bytes with a scale of each row.
  void read_positions(const Info& info, int64_t channels) {
    const auto table = info.constant(kPositionTable);
    const bool bytes = table && table->type == kS8;
    require(bytes == info.constant(kPositionScale).has_value(), "an int8 position_table and position_scale come together");
    if (!bytes) {
      tables.positions = rows(info, kPositionTable, "position_table", channels, positions);
      return;
    }
    require(table->rank() == 2 && table->dim(1) == channels, "position_table must be [rows, C]");
    positions = table->dim(0);
    const Tensor scale = info.constant(kPositionScale, kF32, "position_scale");
    require(scale.size() == positions, "position_scale must have one value a row of position_table");
    tables.position_bytes = table->as<int8_t>(), tables.position_scale = scale.as<float>();
  }

  static const float* rows(const Info& info, int index, const char* name, int64_t channels, int64_t& count) {
    if (!info.constant(index)) return nullptr;
    const Tensor table = info.constant(index, kF32, name);
    if (table.rank() != 2 || table.dim(1) != channels) throw Error(std::string(name) + " must be [rows, C]");
    count = table.dim(0);
    return table.as<float>();
  }

  Buffer<int64_t> type_ids(const Context& context, const Tensor& ids) const {
    require(context.has(kTypeIds) == (tables.types != nullptr), "type_ids and type_table come together");
    if (!tables.types) return {};
    const Tensor given = context.input(kTypeIds);
    require(given.shape == ids.shape, "type_ids must have the shape of ids");
    return rows_of(given, ids.size(), types, "the type id");
  }

  Buffer<int64_t> position_ids(const Context& context, const Tensor& ids) const {
    if (!has_positions()) {
      require(!context.has(kPositionIds), "position_ids need a position_table");
      return {};
    }
    const int64_t length = ids.dim(1);
    if (context.has(kPositionIds)) {
      const Tensor given = context.input(kPositionIds);
      require(given.rank() >= 1 && given.dim(-1) == length && (given.size() == length || given.shape == ids.shape),
              "position_ids must be [length], [1, length] or [batch, length]");
      return rows_of(given, ids.size(), positions, "the position");
    }
    require(offset >= 0 && offset <= positions && length <= positions - offset,
            "the sequence is longer than the position table");
    Buffer<int64_t> result(ids.size());
    for (int64_t i = 0; i < ids.size(); i++) result[i] = offset + i % length;
    return result;
  }
};

}  // namespace

OpDefinition embedlayernorm() {
  return {"EmbedLayerNorm",
          {{kAny}, {kS8}, {kF32}, {kAny, optional}, {kF32, optional}, {kAny, optional}, {kAny, optional}, {kF32},
           {kF32}, {kF32, optional}, {kU8, optional}, {kF32, optional}},
          {{kF32, optional}, {kU8, optional}, {kF32, optional}, {kU8, optional}},
          make<EmbedLayerNorm>};
}

}  // namespace oc

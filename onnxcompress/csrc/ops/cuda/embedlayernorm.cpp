// EmbedLayerNorm on a device. The ids are known to the device only, which is not waited for: where the CPU refuses a
// token whose id is beyond a table, here its row of y is not a number.
#include "cuda/embedding.hpp"
#include "ops/cuda/device_kernel.hpp"

namespace oc {

namespace {

enum In {
  kIds, kTable, kTableScale, kTypeIds, kTypeTable, kPositionTable, kPositionIds, kGamma, kBeta, kQScale, kQZero,
  kPositionScale
};
enum Out { kY, kQ, kRowScale, kRowZero };

cuda::TokenIds token_ids(const Tensor& ids) {
  require(ids.type == kI64 || ids.type == kI32, "ids must be int64 or int32");
  return {ids.data, ids.type == kI32, ids.size()};
}

struct EmbedLayerNormOnDevice : DeviceKernel {
  cuda::EmbedNorm shared;  // all but tensors of a run
  bool quantizes = false;
  DeviceBuffer words, word_scale, types, positions, position_scale, gamma, beta, inverse;

  explicit EmbedLayerNormOnDevice(const Info& info) : DeviceKernel(info) {
    const Tensor table = info.constant(kTable, kS8, "table"), scale = info.constant(kTableScale, kF32, "table_scale"),
                 weight = info.constant(kGamma, kF32, "gamma"), bias = info.constant(kBeta, kF32, "beta");
    require(table.rank() == 2 && table.dim(1) > 0 && table.dim(1) <= 1 << 24, "table must be [V, C]");
    const int64_t channels = table.dim(1);
    require(scale.size() == table.dim(0), "table_scale must have one value a row of table");
    require(weight.size() == channels && bias.size() == channels, "gamma and beta must have C values");
    words = upload(table.as<int8_t>(), table.size()), word_scale = upload(scale.as<float>(), scale.size());
    gamma = upload(weight.as<float>(), channels), beta = upload(bias.as<float>(), channels);
    shared.channels = static_cast<int>(channels), shared.words = table.dim(0);
    shared.word_table = words.as<int8_t>(), shared.word_scale = word_scale.as<float>();
    shared.gamma = gamma.as<float>(), shared.beta = beta.as<float>();
    if (info.constant(kTypeTable)) {
      types = read_table(info.constant(kTypeTable, kF32, "type_table"), "type_table", shared.types);
      shared.type_table = types.as<float>();
    }
    read_positions(info);
    shared.epsilon = info.real("epsilon", 1e-12f);
    require(shared.epsilon >= 0, "epsilon must not be negative");
    shared.position_offset = info.integer("position_offset", 0);
    shared.dynamic = info.integer("dynamic", 0) != 0;
    shared.q_zero = info.zero_point(kQZero, "q_zero_point", 0);
    if (const auto q_scale = info.constant(kQScale)) read_scale(*q_scale);
  }

  void run(Context& context) override {
    const Tensor ids = context.input(kIds);
    require(ids.rank() == 2, "ids must be [batch, length]");
    const std::vector<int64_t> shape = {ids.dim(0), ids.dim(1), shared.channels}, column = {ids.dim(0), ids.dim(1), 1};
    cuda::EmbedNorm p = shared;
    p.y = context.output(kY, shape, kF32).as<float>(), p.q = context.output(kQ, shape, kU8).as<uint8_t>();
    require(!p.q || p.dynamic || quantizes, "q needs q_scale or dynamic = 1");
    require(p.dynamic || context.output_count() <= 2, "row_scale and row_zero_point need dynamic = 1");
    require(has_positions() || !context.has(kPositionTable), "position_table must be a constant");
    require(p.position_scale || !context.has(kPositionScale), "position_scale must be a constant");
    require(quantizes || !context.has(kQScale), "q_scale must be a constant");
    if (p.dynamic) {
      p.row_scale = context.output(kRowScale, column, kF32).as<float>();
      p.row_zero = context.output(kRowZero, column, kU8).as<uint8_t>();
    }
    p.tokens = ids.size();
    if (p.tokens == 0) return;
    p.ids = token_ids(ids), p.length = ids.dim(1);
    require(context.has(kTypeIds) == (p.type_table != nullptr), "type_ids and type_table come together");
    if (p.type_table) {
      const Tensor given = context.input(kTypeIds);
      require(given.shape == ids.shape, "type_ids must have the shape of ids");
      p.type_ids = token_ids(given);
    }
    if (context.has(kPositionIds)) p.position_ids = position_ids(context.input(kPositionIds), ids);
    const bool counts = has_positions() && !p.position_ids.values;
    require(!counts || (p.position_offset >= 0 && p.position_offset <= p.positions &&
                        p.length <= p.positions - p.position_offset),
            "the sequence is longer than the position table");
    cuda::embed_norm(p, context.stream());
  }

 private:
  bool has_positions() const { return shared.position_table || shared.position_bytes; }

  cuda::TokenIds position_ids(const Tensor& given, const Tensor& ids) const {
    require(has_positions(), "position_ids need a position_table");
    const int64_t length = ids.dim(1);
    require(given.rank() >= 1 && given.dim(-1) == length && (given.size() == length || given.shape == ids.shape),
            "position_ids must be [length], [1, length] or [batch, length]");
    return token_ids(given);
  }

  DeviceBuffer read_table(const Tensor& table, const char* name, int64_t& rows) const {
    if (table.rank() != 2 || table.dim(1) != shared.channels) throw Error(std::string(name) + " must be [rows, C]");
    rows = table.dim(0);
    return upload(table.as<float>(), table.size());
  }

  void read_scale(const Tensor& q_scale) {
    const int64_t count = q_scale.size();
    require(q_scale.type == kF32 && (count == 1 || count == shared.channels), "q_scale must have 1 or C floats");
    std::vector<float> values(q_scale.as<float>(), q_scale.as<float>() + count);
    for (float& value : values) value = 1.f / value;
    quantizes = true, shared.q_inverse = values[0];
    if (count > 1) inverse = upload(values), shared.q_inverse_vector = inverse.as<float>();
  }

  // Floats, or bytes with a scale of each row.
  void read_positions(const Info& info) {
    const auto table = info.constant(kPositionTable);
    const bool bytes = table && table->type == kS8, scaled = info.constant(kPositionScale).has_value();
    require(bytes == scaled, "an int8 position_table and position_scale come together");
    if (!table) return;
    if (!bytes) {
      positions = read_table(info.constant(kPositionTable, kF32, "position_table"), "position_table", shared.positions);
      shared.position_table = positions.as<float>();
      return;
    }
    require(table->rank() == 2 && table->dim(1) == shared.channels, "position_table must be [rows, C]");
    const Tensor scale = info.constant(kPositionScale, kF32, "position_scale");
    require(scale.size() == table->dim(0), "position_scale must have one value a row of position_table");
    positions = upload(table->as<int8_t>(), table->size()), position_scale = upload(scale.as<float>(), scale.size());
    shared.positions = table->dim(0);
    shared.position_bytes = positions.as<int8_t>(), shared.position_scale = position_scale.as<float>();
  }
};

}  // namespace

OpDefinition embedlayernorm_on_device() {
  return on_device(embedlayernorm(), make<EmbedLayerNormOnDevice>,
                   {kTable, kTableScale, kTypeTable, kPositionTable, kGamma, kBeta, kQScale, kQZero, kPositionScale});
}

}  // namespace oc

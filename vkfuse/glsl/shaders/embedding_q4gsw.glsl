// et_vk.embedding_q4gsw: rows of a 4-bit table, times their groups' scales. docs/shader.md draws the layouts.
// SPDX-License-Identifier: BSD-3-Clause

#version 450 core

${define_required_extensions(STORAGE, DTYPE)}
${define_required_extensions("buffer", SCALES_DTYPE)}
#extension GL_EXT_control_flow_attributes : require

#define PRECISION ${PRECISION}
#define VECTOR ${texel_load_type(DTYPE, STORAGE)}

layout(std430) buffer;

// Packed words and indices need all their bits where PRECISION is mediump.
${layout_declare_tensor(B, "w", "t_out", DTYPE, STORAGE, is_scalar_array=False)}
${layout_declare_tensor(B, "r", "t_indices", "int", STORAGE, precision="highp")}
$if WEIGHT_LAYOUT == "texture2d":
  ${layout_declare_tensor(B, "r", "t_weight", "int", "texture2d", precision="highp")}
$else:
  ${layout_declare_tensor(B, "r", "t_weight", "int", "buffer", precision="highp")}
${layout_declare_tensor(B, "r", "t_scales", SCALES_DTYPE, "buffer")}
${layout_declare_ubo(B, "ivec4", "out_sizes", precision="highp")}

layout(push_constant) uniform PushConstants {
  int group_size;
  int is_linear_weight;
};

layout(local_size_x_id = 0, local_size_y_id = 1, local_size_z_id = 2) in;

const int VECTORS = 8;  // of four columns each: the runtime sends one invocation for 32 columns

// at / size for at < 2^20, quicker than with integers; the half keeps the product off the borders of quotients.
int quotient(const int at, const int size) {
  return int((float(at) + 0.5) * (1.0 / float(size)));
}

int groups_of_row() {
  return quotient(out_sizes.x, group_size);
}

// Vectors of a row, rows, planes.
ivec3 output_size() {
  return ivec3(out_sizes.x >> 2, out_sizes.y, out_sizes.z * out_sizes.w);
}

// The indices have the shape of the output without its columns.
int load_index(const int y, const int z) {
$if STORAGE == "buffer":
  return t_indices[z * out_sizes.y + y];
$else:
  const int outer = quotient(z, out_sizes.z);
  return texelFetch(t_indices, ivec3(y >> 2, z - outer * out_sizes.z, outer), 0)[y & 3];
}

// Whether `length` elements have a row `row` of `stride` elements each: length / stride > row, without a division.
bool has_row(const int length, const int stride, const int row) {
  uint high, low;
  umulExtended(uint(row), uint(stride), high, low);
  return length >= stride && high == 0 && low <= uint(length - stride);
}

// is_row(): whether the table has a row. A linear weight ends with a block of rows, its scales with the last row.
// PACKED: what is loaded for columns 4x..4x+3 of a row; nothing is done with it before all is loaded. bits_of(): where
// in it the four nibbles are, at SHIFTS.
$if WEIGHT_LAYOUT == "flat":
  #define PACKED int
  #define SHIFTS uvec4(4, 0, 12, 8)
  bool is_row(const int row) {
    return has_row(t_weight.length(), out_sizes.x >> 3, row);
  }
  PACKED load_packed(const int row, const int x) {
    return t_weight[row * (out_sizes.x >> 3) + (x >> 1)];
  }
  uint bits_of(const PACKED packed, const int row, const int x) {
    return uint(packed) >> ((x & 1) << 4);
  }
$else:
  #define SHIFTS uvec4(0, 8, 16, 24)
  bool is_row(const int row) {
    return has_row(t_scales.length(), groups_of_row(), row);
  }
  $if WEIGHT_LAYOUT == "buffer":
    #define PACKED int
    PACKED load_packed(const int row, const int x) {
      return t_weight[(row >> 3) * out_sizes.x + (x << 2) + (row & 3)];
    }
    uint bits_of(const PACKED packed, const int row, const int x) {
      return uint(packed) >> (row & 4);
    }
  $else:
    #define PACKED ivec4
    PACKED load_packed(const int row, const int x) {
      return texelFetch(t_weight, ivec2(x, row >> 3), 0);
    }
    uint bits_of(const PACKED packed, const int row, const int x) {
      return uint(packed[row & 3]) >> (row & 4);
    }

// The values -8..7 of four nibbles: 2^23 + n is the float whose lowest bits are n.
vec4 unpack(const uint bits) {
  return uintBitsToFloat((uvec4(bits) >> SHIFTS & 15u) | 0x4b000000u) - (exp2(23.0) + 8.0);
}

const uint ZEROS = 0x88888888u;  // unpack() makes zeros of it

$if DTYPE == "half":
  // The nearest half, ties to even, still as floats: Vulkan leaves open how a conversion or an image store rounds.
  // (Adding a large number and taking it away again would be shorter, and compilers drop it, `precise` or not.)
  vec4 round_to_output(const vec4 v) {
    const uvec4 bits = floatBitsToUint(v);
    const vec4 normal = uintBitsToFloat((bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu);
    const vec4 subnormal = roundEven(v * exp2(24.0)) * exp2(-24.0);
    return mix(normal, subnormal, lessThan(abs(v), vec4(exp2(-14.0))));
  }
$else:
  #define round_to_output(v) (v)

// One vector of the output, and what its values are made of.
struct Vector {
  ivec3 pos;
  int row;  // of the table, or -1
  PACKED packed;
  float scale;  // of the first column
};

// The row that an index asks for, or -1: the runtime checks no index, and does not tell the size of the table.
int row_at(const ivec3 pos) {
  const int row = load_index(min(pos.y, output_size().y - 1), min(pos.z, output_size().z - 1));
  return is_row(row) ? row : -1;
}

Vector load(const ivec3 pos, const int row) {
  const int x = min(pos.x, output_size().x - 1);
  const int group = max(row, 0) * groups_of_row() + quotient(x << 2, group_size);
  return Vector(pos, row, load_packed(max(row, 0), x), float(t_scales[group]));
}

void store(const Vector v, const vec4 scales) {
  const ivec3 size = output_size();
  const vec4 q = unpack(v.row < 0 ? ZEROS : bits_of(v.packed, v.row, v.pos.x));
  const vec4 values = round_to_output(q * (v.row < 0 ? vec4(0) : scales));
  if (all(lessThan(v.pos, size))) {
$if STORAGE == "buffer":
    t_out[(v.pos.z * size.y + v.pos.y) * size.x + v.pos.x] = VECTOR(values);
$else:
    imageStore(t_out, v.pos, values);
  }
}

// The scales of a vector that may span groups, each loaded once.
vec4 load_scales(const Vector v) {
  const int column = min(v.pos.x, output_size().x - 1) << 2;
  vec4 scales = vec4(v.scale);
  int group = quotient(column, group_size);
  for (int i = 1; i < 4; i++) {
    const int last = group;
    group = quotient(column + i, group_size);
    scales[i] = group == last ? scales[i - 1] : float(t_scales[max(v.row, 0) * groups_of_row() + group]);
  }
  return scales;
}

// Work groups usually start in the order of x, y, z. A texture is kept in tiles, so that rows above and below are fetched along:
// there, groups of the same columns follow each other, and find in the cache what others have brought.
$if WEIGHT_LAYOUT == "texture2d":
  uvec3 work_group() {
    const uvec3 count = gl_NumWorkGroups, id = gl_WorkGroupID;
    const uint at = id.x + count.x * (id.y + count.y * id.z);
    const uint column = at / (count.y * count.z);
    const uint rest = at - column * (count.y * count.z);
    return uvec3(column, rest % count.y, rest / count.y);
  }
$else:
  #define work_group() gl_WorkGroupID

// Where the vectors of an invocation lie. Were they the 32 columns that it was sent for, neighbours would store 128
// bytes apart, and a memory transaction would carry a quarter of what it could. So neighbours along x share their
// columns and write them side by side. Each stays in its row: one index to load and, in a texture, whose tiles are a
// few texels wide and a few high, whole tiles to write. A work group of a buffer that is too narrow to fill a
// transaction deals its vectors out in order instead, from row to row.
$if STORAGE == "buffer":
  const bool DEALT = gl_WorkGroupSize.x < 4;
$else:
  const bool DEALT = false;

ivec3 position(const int turn) {
  const uvec3 size = gl_WorkGroupSize, first = work_group() * size * uvec3(VECTORS, 1, 1);
  if (!DEALT) {
    return ivec3(first + gl_LocalInvocationID + uvec3(turn * size.x, 0, 0));
  }
  const uint dealt = turn * size.x * size.y * size.z + gl_LocalInvocationIndex;
  const uint row = dealt / (VECTORS * size.x);
  return ivec3(first + uvec3(dealt % (VECTORS * size.x), row % size.y, row / size.y));
}

// Right for groups that begin or end within a vector, too, and slower.
void one_by_one() {
  [[dont_unroll]] for (int turn = 0; turn < VECTORS; turn++) {
    const Vector v = load(position(turn), row_at(position(turn)));
    store(v, load_scales(v));
  }
}

void main() {
  // The local index decides nothing, but on a branch that hangs on constants alone lavapipe compiles at each dispatch.
  const bool spans_groups = min(group_size & 3, int(gl_LocalInvocationIndex) + 1) > 0;
  Vector vectors[VECTORS];
  int row;
  [[unroll]] for (int turn = 0; turn < VECTORS; turn++) {
    if (turn == 0 || DEALT) {
      row = row_at(position(turn));
    }
    vectors[turn] = load(position(turn), row);
  }
  if (spans_groups) {
    one_by_one();
    return;
  }
  // Never so, but the question needs all loads. Without it drivers store the first vectors before they load the last,
  // and wait for memory time and again. (The answer does no harm where a compiler takes a scale of NaN for less.)
  float least = abs(vectors[0].scale);
  [[unroll]] for (int turn = 1; turn < VECTORS; turn++) {
    least = min(least, abs(vectors[turn].scale));
  }
  if (least < 0.0) {
    one_by_one();
    return;
  }
  [[unroll]] for (int turn = 0; turn < VECTORS; turn++) {
    store(vectors[turn], vec4(vectors[turn].scale));
  }
}

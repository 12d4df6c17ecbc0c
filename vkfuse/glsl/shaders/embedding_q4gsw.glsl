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

const uint VECTORS_PER_BLOCK = 8;

// out_sizes is WHCN: columns, then the indices' width, height and depth.
int load_index(const int y, const int z) {
$if STORAGE == "buffer":
  return t_indices[z * out_sizes.y + y];
$else:
  const int outer = z < out_sizes.z ? 0 : z / out_sizes.z;
  return texelFetch(t_indices, ivec3(y >> 2, z - outer * out_sizes.z, outer), 0)[y & 3];
}

// The 16 bits of columns 4x..4x+3 of a row as four integers; `rows` counts the rows that the weight holds.
$if WEIGHT_LAYOUT == "flat":
  int rows_of_weight() {
    return t_weight.length() / (out_sizes.x >> 3);
  }
  ivec4 load_weights(const int row, const int x) {
    const uint word = uint(t_weight[row * (out_sizes.x >> 3) + (x >> 1)]) >> ((x & 1) << 4);
    return ivec4((uvec4(word) >> uvec4(4, 0, 12, 8)) & 15u) - 8;
  }
$else:
  int rows_of_weight() {
    $if WEIGHT_LAYOUT == "texture2d":
      return textureSize(t_weight, 0).y << 3;
    $else:
      return t_weight.length() / out_sizes.x << 3;
  }
  ivec4 load_weights(const int row, const int x) {
    $if WEIGHT_LAYOUT == "texture2d":
      const uint word = uint(texelFetch(t_weight, ivec2(x, row >> 3), 0)[row & 3]) >> (row & 4);
    $else:
      const uint word = uint(t_weight[(row >> 3) * out_sizes.x + (x << 2) + (row & 3)]) >> (row & 4);
    return ivec4((uvec4(word) >> uvec4(0, 8, 16, 24)) & 15u) - 8;
  }

// One load for the vector, unless it spans groups: then one for each group.
vec4 load_scales(const int first, const int x) {
  int group = (x << 2) / group_size;
  int next = (group + 1) * group_size - (x << 2);
  vec4 scales = vec4(t_scales[first + group]);
  for (int i = next; i < 4; i++) {
    if (i == next) {
      group++;
      next += group_size;
      scales.w = float(t_scales[first + group]);
    }
    scales[i] = scales.w;
  }
  return scales;
}

$if DTYPE == "half":
  // The nearest half, ties to even, still as floats: Vulkan leaves open how a conversion or an image store rounds.
  vec4 round_to_output(const vec4 v) {
    const uvec4 bits = floatBitsToUint(v);
    const vec4 normal = uintBitsToFloat((bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu);
    const vec4 subnormal = roundEven(v * exp2(24.0)) * exp2(-24.0);
    return mix(normal, subnormal, lessThan(abs(v), vec4(exp2(-14.0))));
  }
$else:
  #define round_to_output(v) (v)

void write_vector(const ivec3 pos, const int rows, const int groups) {
  const int row = load_index(pos.y, pos.z);
  vec4 v = vec4(0);
  if (row >= 0 && row < rows) {
    v = round_to_output(vec4(load_weights(row, pos.x)) * load_scales(row * groups, pos.x));
  }
$if STORAGE == "buffer":
  t_out[(pos.z * out_sizes.y + pos.y) * (out_sizes.x >> 2) + pos.x] = VECTOR(v);
$else:
  imageStore(t_out, pos, v);
}

// The runtime sends one invocation for a block of 32 columns. Were each to write its own, neighbours would store 128
// bytes apart and a memory transaction would carry a quarter of what it could. So the vectors of a work group's blocks
// are dealt out in order: neighbouring invocations write neighbouring vectors, whatever the local size.
void main() {
  const int groups = out_sizes.x / group_size;
  const int rows = min(rows_of_weight(), t_scales.length() / groups);
  const uvec3 size = gl_WorkGroupSize;
  for (uint turn = 0; turn < VECTORS_PER_BLOCK; turn++) {
    const uint vector = turn * size.x * size.y * size.z + gl_LocalInvocationIndex;
    const uint block = vector / VECTORS_PER_BLOCK;
    const uvec3 owner = uvec3(block % size.x, block / size.x % size.y, block / (size.x * size.y));
    const uvec3 id = gl_WorkGroupID * size + owner;
    const ivec3 pos = ivec3(id.x * VECTORS_PER_BLOCK + vector % VECTORS_PER_BLOCK, id.yz);
    if (pos.x < out_sizes.x >> 2 && pos.y < out_sizes.y && pos.z < out_sizes.z * out_sizes.w) {
      write_vector(pos, rows, groups);
    }
  }
}

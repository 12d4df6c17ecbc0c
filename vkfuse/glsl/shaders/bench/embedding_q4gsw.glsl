// The rival in `vkfuse shader bench`: each invocation writes its own 32 columns of a row, as the runtime maps them.
// SPDX-License-Identifier: BSD-3-Clause

#version 450 core

${define_required_extensions(STORAGE, DTYPE)}
${define_required_extensions("buffer", SCALES_DTYPE)}
#extension GL_EXT_control_flow_attributes : require

#define PRECISION ${PRECISION}
#define SCALAR ${texel_load_component_type(DTYPE, STORAGE)}

layout(std430) buffer;

${layout_declare_tensor(B, "w", "t_out", DTYPE, STORAGE)}
${layout_declare_tensor(B, "r", "t_indices", "int", STORAGE)}
$if WEIGHT_LAYOUT == "texture2d":
  ${layout_declare_tensor(B, "r", "t_weight", "int", "texture2d")}
$else:
  ${layout_declare_tensor(B, "r", "t_weight", "int", "buffer", is_scalar_array=False)}
${layout_declare_tensor(B, "r", "t_scales", SCALES_DTYPE, "buffer")}
${layout_declare_ubo(B, "ivec4", "out_sizes")}

layout(push_constant) uniform PushConstants {
  int group_size;
  int is_linear_weight;
};

layout(local_size_x_id = 0, local_size_y_id = 1, local_size_z_id = 2) in;

int load_index(const int y, const int z) {
$if STORAGE == "buffer":
  return t_indices[z * out_sizes.y + y];
$else:
  return texelFetch(t_indices, ivec3(y >> 2, z % out_sizes.z, z / out_sizes.z), 0)[y & 3];
}

ivec4 load_weights(const int row, const int x) {
$if WEIGHT_LAYOUT == "flat":
  const ivec4 block = t_weight[row * (out_sizes.x >> 5) + (x >> 3)];
  const uint word = uint(block[(x >> 1) & 3]) >> ((x & 1) << 4);
  return ivec4((uvec4(word) >> uvec4(4, 0, 12, 8)) & 15u) - 8;
$else:
  $if WEIGHT_LAYOUT == "texture2d":
    const ivec4 block = texelFetch(t_weight, ivec2(x, row >> 3), 0);
  $else:
    const ivec4 block = t_weight[(row >> 3) * (out_sizes.x >> 2) + x];
  const uint word = uint(block[row & 3]) >> (row & 4);
  return ivec4((uvec4(word) >> uvec4(0, 8, 16, 24)) & 15u) - 8;
}

void main() {
  const int y = int(gl_GlobalInvocationID.y);
  const int z = int(gl_GlobalInvocationID.z);
  const int first = int(gl_GlobalInvocationID.x) * 8;
  if (first >= out_sizes.x >> 2 || y >= out_sizes.y || z >= out_sizes.z * out_sizes.w) {
    return;
  }
  const int row = load_index(y, z);
  [[unroll]] for (int i = 0; i < 8; i++) {
    const int x = first + i;
    const float scale = float(t_scales[row * (out_sizes.x / group_size) + (x << 2) / group_size]);
    const vec4 v = vec4(load_weights(row, x)) * scale;
$if STORAGE == "buffer":
    const int at = (z * out_sizes.y + y) * out_sizes.x + (x << 2);
    t_out[at] = SCALAR(v.x);
    t_out[at + 1] = SCALAR(v.y);
    t_out[at + 2] = SCALAR(v.z);
    t_out[at + 3] = SCALAR(v.w);
$else:
    imageStore(t_out, ivec3(x, y, z), v);
  }
}

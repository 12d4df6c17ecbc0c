// The yardstick of `vkfuse shader bench`: copies vectors of 16 bytes as fast as a shader can.
// SPDX-License-Identifier: BSD-3-Clause

#version 450 core

#define PRECISION ${PRECISION}

#extension GL_EXT_control_flow_attributes : require

layout(std430) buffer;

${layout_declare_tensor(B, "w", "t_out", "uint", "buffer", is_scalar_array=False)}
${layout_declare_tensor(B, "r", "t_in", "uint", "buffer", is_scalar_array=False)}

layout(local_size_x_id = 0, local_size_y_id = 1, local_size_z_id = 2) in;

const uint VECTORS_PER_INVOCATION = 4;

void main() {
  const uint first = gl_WorkGroupID.x * gl_WorkGroupSize.x * VECTORS_PER_INVOCATION + gl_LocalInvocationIndex;
  [[unroll]] for (uint i = 0; i < VECTORS_PER_INVOCATION; i++) {
    const uint at = first + i * gl_WorkGroupSize.x;
    if (at < t_out.length()) {
      t_out[at] = t_in[at];
    }
  }
}

// Step 1 of the 3x3 convolution (stride 1, padding 1, NHWC, HWIO): the definition, a thread an output.
//
//   y[n,h,w,o] = b[o] + sum_{i,j,c} x[n, h + i - 1, w + j - 1, c] W[i,j,c,o]
//
// The threads of a warp have neighbouring o: they read the same x, one 32-byte sector, and 32 neighbours of W, two sectors.
//
// Counted for batch 128, 32x32, 128 -> 128, bfloat16 (here and in the next steps):
//   operations  2 x 131072 pixels x 128 x 1152 = 38.7 GFLOP: 48 us at the 798 TFLOP/s of an H100's tensor cores
//   bytes       x, y and W once: 67.4 MB: 22 us at 3.0 TB/s
//   here        each FMA loads both its factors: 604 million FMA of a warp and 1208 million loads, of 58 GB in sectors
// A multiprocessor begins one load of a warp a cycle, so 132 of them at 1.75 GHz take 5.2 ms at best, a hundred times the
// floor; the FMA alone would take 0.65 ms. (Predicted; not yet run on a GPU.)
//
// bench conv2d: grid = ceil(N * H * W * C_out, 256), block = 256
#include <device.cuh>

extern "C" __global__ void __launch_bounds__(256) conv2d(
    const Real* x, const Real* weight, const float* bias, Real* y, int images, int height, int width, int in, int out
) {
    long long index = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    int pixel = (int)(index / out), o = (int)(index % out), h = pixel / width % height, w = pixel % width;
    if (pixel >= images * height * width) return;
    float sum = bias[o];
    for (int i = -1; i <= 1; i++) {
        for (int j = -1; j <= 1; j++) {
            if (h + i < 0 || h + i >= height || w + j < 0 || w + j >= width) continue;
            const Real* from = x + (long long)(pixel + i * width + j) * in;
            const Real* by = weight + (3 * i + j + 4) * in * out + o;
            for (int c = 0; c < in; c++) sum += load(from + c) * load(by + c * out);
        }
    }
    store(y + index, sum);
}

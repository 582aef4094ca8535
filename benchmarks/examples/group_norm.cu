// A group norm as somebody might first write it: a block a group of a sample, three passes over it. To see it checked and
// timed beside ours:  refdiff bench --kernel benchmarks/examples/group_norm.cu:simple_group_norm --as group_norm
//
// bench simple_group_norm: grid = N * G, block = 256
#include <device.cuh>

extern "C" __global__ void __launch_bounds__(256)
    simple_group_norm(const Real* x, const float* weight, const float* bias, Real* y, float epsilon, int N, int P, int C,
                      int G) {
    __shared__ float scratch[8];
    int channels = C / G, n = blockIdx.x / G, first = blockIdx.x % G * channels, count = P * channels;
    const Real* from = x + (size_t)n * P * C + first;
    Real* to = y + (size_t)n * P * C + first;

    float sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += load(from + (size_t)(i / channels) * C + i % channels);
    float mean = block_sum(sum, scratch) / count;
    __syncthreads();

    float squares = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        float u = load(from + (size_t)(i / channels) * C + i % channels) - mean;
        squares += u * u;
    }
    float rsd = rsqrtf(block_sum(squares, scratch) / count + epsilon);

    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        size_t at = (size_t)(i / channels) * C + i % channels;
        int c = first + i % channels;
        store(to + at, weight[c] * (load(from + at) - mean) * rsd + bias[c]);
    }
}

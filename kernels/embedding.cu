// Rows of a table.
//
//   y[i] = weight[index[i]]            dweight[r] = the sum of dy[i] over all i with index[i] = r
//
// embedding: a thread takes PACK channels of one row (16 bytes), or one channel. Its backward: a block takes one row of
// the table and up to 128 channels, and its threads walk the indices in their order, several a channel where there are few
// channels, whose sums are then added in order: there are no atomics and two runs are equal. The indices come from the
// cache, since all blocks read the same.
//
// Bytes: embedding 2 n C sizeof(Real), backward rows C 4 + n C sizeof(Real) (and rows C / 128 reads of the n indices,
// from the cache: for tables of classes, not of words). Floor: one launch.
#include <device.cuh>

constexpr int V = PACK<Real>;

extern "C" __global__ void __launch_bounds__(256)
    embedding(const int* index, const Real* weight, Real* y, int C, int n) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (C % V == 0) {
        i *= V;
        if (i >= n) return;
        *(uint4*)(y + i) = *(const uint4*)(weight + (size_t)index[(int)i / C] * C + (int)i % C);
    } else {
        if (i >= n) return;
        y[i] = weight[(size_t)index[(int)i / C] * C + (int)i % C];
    }
}

constexpr int WALKERS = 128;  // threads of a block of embedding_backward; engines/cuda/embedding_ops.py reads it

// grid: (rows, slices of `width` channels), width a power of two up to WALKERS.
extern "C" __global__ void __launch_bounds__(WALKERS)
    embedding_backward(const Real* dy, const int* index, float* dweight, int n, int C, int width) {
    __shared__ float scratch[WALKERS];
    int row = blockIdx.x, lane = threadIdx.x % width, c = blockIdx.y * width + lane;
    float sum = 0;
    for (int i = threadIdx.x / width; c < C && i < n; i += WALKERS / width)
        if (index[i] == row) sum += load(dy + (size_t)i * C + c);
    scratch[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x >= width || c >= C) return;
    for (int i = lane + width; i < WALKERS; i += width) sum += scratch[i];
    dweight[(size_t)row * C + c] = sum;
}

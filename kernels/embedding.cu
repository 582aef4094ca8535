// Rows of a table.
//
//   y[i] = weight[index[i]]            dweight[r] = the sum of dy[i] over all i with index[i] = r
//
// embedding: a thread takes PACK channels of one row (16 bytes), or one channel. Its backward: a block takes one row of
// the table and 128 channels and walks the indices in their order, so there are no atomics and two runs are equal; the
// indices come from the cache, since all blocks read the same.
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

// grid: (rows, slices of 128 channels)
extern "C" __global__ void __launch_bounds__(128)
    embedding_backward(const Real* dy, const int* index, float* dweight, int n, int C) {
    int row = blockIdx.x, c = blockIdx.y * blockDim.x + threadIdx.x;
    if (c >= C) return;
    float sum = 0;
    for (int i = 0; i < n; i++)
        if (index[i] == row) sum += load(dy + (size_t)i * C + c);
    dweight[(size_t)row * C + c] = sum;
}

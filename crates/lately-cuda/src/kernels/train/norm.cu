// Residual sum and layer normalisation (post-norm): y = gamma * norm(x + dropout(branch + bias)) + beta. A warp a row, a lane
// every 32nd column.

#if WIDTH > 0

#define PER_LANE ((WIDTH + 31) / 32)

// `rstd`: one a row.
extern "C" __global__ void add_norm(const Real *x, const Real *branch, const float *bias, const float *gamma,
                                    const float *beta, u32 rows, u32 stride, Real *normed, float *rstd, Real *y,
                                    u32 seed_first, u32 seed_second, float rate) {
    const u32 lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const Dropout dropout = {seed_first, seed_second, rate};
    const size_t at = (size_t)row * stride;
    float v[PER_LANE], sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        u32 column = lane + 32 * i;
        v[i] = 0.0f;
        if (column < WIDTH)
            v[i] = value(x[at + column]) +
                   (value(branch[at + column]) + bias[column]) * factor(dropout, row * WIDTH + column);
        sum += v[i];
    }
    const float mean = warp_sum(sum) * (1.0f / WIDTH);
#pragma unroll
    for (int i = 0; i < PER_LANE; i++)
        if (lane + 32 * i < WIDTH) squares += (v[i] - mean) * (v[i] - mean);
    const float r = rsqrtf(warp_sum(squares) * (1.0f / WIDTH) + 1e-5f);
    if (lane == 0) rstd[row] = r;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        u32 column = lane + 32 * i;
        if (column < WIDTH) {
            float n = (v[i] - mean) * r;
            normed[at + column] = real(n);
            y[at + column] = real(n * gamma[column] + beta[column]);
        }
    }
}

// From `dy` to `dx` and `d_branch`, and a block's sums over its rows for gamma, beta and bias: `parts`, blocks x 3 width.
// Shared memory: warps x 3 width numbers.
extern "C" __global__ void add_norm_backward(const Real *dy, const Real *normed, const float *rstd, const float *gamma,
                                             u32 rows, u32 stride, Real *dx, Real *d_branch, float *parts,
                                             u32 seed_first, u32 seed_second, float rate) {
    SHARED(shared);
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const Dropout dropout = {seed_first, seed_second, rate};
    float of_gamma[PER_LANE], of_beta[PER_LANE], of_bias[PER_LANE];
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) of_gamma[i] = of_beta[i] = of_bias[i] = 0.0f;
    for (u32 row = blockIdx.x * warps + warp; row < rows; row += gridDim.x * warps) {
        const size_t at = (size_t)row * stride;
        float d[PER_LANE], n[PER_LANE], sum = 0.0f, slope = 0.0f;
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            u32 column = lane + 32 * i;
            d[i] = n[i] = 0.0f;
            if (column < WIDTH) {
                float y = value(dy[at + column]);
                n[i] = value(normed[at + column]);
                of_gamma[i] += y * n[i];
                of_beta[i] += y;
                d[i] = y * gamma[column];
            }
            sum += d[i];
            slope += d[i] * n[i];
        }
        sum = warp_sum(sum) * (1.0f / WIDTH);
        slope = warp_sum(slope) * (1.0f / WIDTH);
        const float r = rstd[row];
#pragma unroll
        for (int i = 0; i < PER_LANE; i++) {
            u32 column = lane + 32 * i;
            if (column < WIDTH) {
                float x = (d[i] - sum - n[i] * slope) * r;
                float b = x * factor(dropout, row * WIDTH + column);
                dx[at + column] = real(x);
                d_branch[at + column] = real(b);
                of_bias[i] += b;
            }
        }
    }
    float *sums = (float *)shared;
#pragma unroll
    for (int i = 0; i < PER_LANE; i++) {
        u32 column = lane + 32 * i;
        if (column < WIDTH) {
            sums[(warp * 3 + 0) * WIDTH + column] = of_gamma[i];
            sums[(warp * 3 + 1) * WIDTH + column] = of_beta[i];
            sums[(warp * 3 + 2) * WIDTH + column] = of_bias[i];
        }
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < 3 * WIDTH; i += blockDim.x) {
        float sum = 0.0f;
        for (u32 w = 0; w < warps; w++) sum += sums[w * 3 * WIDTH + i];
        parts[(size_t)blockIdx.x * 3 * WIDTH + i] = sum;
    }
}

#endif

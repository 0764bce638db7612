// Products of matrices with what follows them done to their sums: a linear map, and its two gradients.
//
// A block of eight warps makes 128 x 64 sums, a warp 32 x 32, from slices of 32 of the inner dimension: while one is
// multiplied from shared memory the next is on its way through registers. A factor is stored with the inner dimension
// along its rows' columns, or along its rows (a gradient's); `ldmatrix` turns the latter around.
//
//     linear            y  = x W^T + b     x: rows x inputs, W: outputs x inputs
//     input_gradient    dx = dy W
//     weight_gradient   dW = dy^T x        the inner dimension are the rows: blocks of y share them, sums come later
//
// A weight's gradient has one column more, of ones beside x: the bias's.

#define BLOCK_M 128
#define BLOCK_N 64
#define BLOCK_K 32
// Of shared memory: 16 bytes more a row, so that the eight rows of a matrix lie in different banks.
#define APART 8
#define PLANE_A (BLOCK_M * (BLOCK_K + APART))
#define PLANE_B (BLOCK_N * (BLOCK_K + APART))
#define SLICE (PLANES * (PLANE_A + PLANE_B))
#define NONE 0xffffffffu

enum { PLAIN, RELU, GATE, LOGITS, ADD, MASK, PART };

// A matrix as it lies in memory. `ones`: a column of ones; NONE for none.
struct Stored {
    const Real *data;
    u32 stride, rows, columns, ones;
};

struct alignas(16) Eight {
    Real x[8];
};

DEVICE void fetch(const Stored &m, u32 row, u32 column, Eight &out) {
    const Real *at = m.data + (size_t)row * m.stride + column;
    if (row < m.rows && column + 8 <= m.columns && (size_t)at % 16 == 0) {
        const uint4 *from = (const uint4 *)at;
        uint4 *to = (uint4 *)out.x;
        to[0] = from[0];
#if SPLIT
        to[1] = from[1];
#endif
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        bool there = row < m.rows && column + i < m.columns;
        out.x[i] = there ? at[i] : real(row < m.rows && column + i == m.ones ? 1.0f : 0.0f);
    }
}

DEVICE void keep(const Eight &x, u16 *to, u32 apart) {
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
        uint4 words;
#if SPLIT
        words.x = plane(x.x[0], x.x[1], p);
        words.y = plane(x.x[2], x.x[3], p);
        words.z = plane(x.x[4], x.x[5], p);
        words.w = plane(x.x[6], x.x[7], p);
#else
        words = *(const uint4 *)x.x;
#endif
        *(uint4 *)(to + p * apart) = words;
    }
}

// Where sums go.
struct Target {
    void *out;
    u32 stride, rows, columns;
    const float *bias;
    const Real *first, *second;
    Real *inner;
    Dropout dropout;
};

// What becomes of a sum; `first`, `second`: numbers of those matrices, `inner` the one to keep.
template <int KIND>
DEVICE float outcome(const Target &t, u32 row, u32 column, float sum, float first, float second, float &inner) {
    if (KIND == PLAIN) return sum + (t.bias ? t.bias[column] : 0.0f);
    if (KIND == RELU) {
        float x = sum + t.bias[column];
        return x > 0.0f ? x * factor(t.dropout, row * t.columns + column) : 0.0f;
    }
    if (KIND == GATE) {
        inner = sum + t.bias[column];
        return first * inner + second;
    }
    if (KIND == ADD) return first + sum;
    // MASK, through dropout and ReLU: what was kept and positive is positive.
    return first > 0.0f ? sum / (1.0f - t.dropout.rate) : 0.0f;
}

// Sums of a row at an even column and the next one.
template <int KIND> DEVICE void finish(const Target &t, u32 row, u32 column, const float (&sum)[2]) {
    if (row >= t.rows || column >= t.columns) return;
    const size_t at = (size_t)row * t.stride + column;
    const bool both = column + 1 < t.columns;
    if (KIND == LOGITS || KIND == PART) {
        float *out = (float *)t.out + at;
        out[0] = sum[0] + (KIND == LOGITS ? t.bias[column] : 0.0f);
        if (both) out[1] = sum[1] + (KIND == LOGITS ? t.bias[column + 1] : 0.0f);
        return;
    }
    Real *out = (Real *)t.out + at;
    const Real *first = KIND == ADD ? out : t.first + at;
    float inner[2];
    if (both) {
        Two x = {0.0f, 0.0f}, y = {0.0f, 0.0f};
        if (KIND == GATE || KIND == ADD || KIND == MASK) x = load_two(first);
        if (KIND == GATE) y = load_two(t.second + at);
        Two z;
        z.first = outcome<KIND>(t, row, column, sum[0], x.first, y.first, inner[0]);
        z.second = outcome<KIND>(t, row, column + 1, sum[1], x.second, y.second, inner[1]);
        store_two(out, z);
        if (KIND == GATE) store_two(t.inner + at, Two{inner[0], inner[1]});
        return;
    }
    float x = 0.0f, y = 0.0f;
    if (KIND == GATE || KIND == ADD || KIND == MASK) x = value(first[0]);
    if (KIND == GATE) y = value(t.second[at]);
    out[0] = real(outcome<KIND>(t, row, column, sum[0], x, y, inner[0]));
    if (KIND == GATE) t.inner[at] = real(inner[0]);
}

// The inner dimension runs along a factor's rows if A_ROWS, B_ROWS; from `start` to `end`.
template <bool A_ROWS, bool B_ROWS, int KIND>
DEVICE void product(const Stored &a, const Stored &b, const Target &t, u32 m0, u32 n0, u32 start, u32 end) {
    SHARED(shared);
    u16 *slices = (u16 *)shared;
    const u32 thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    const u32 pitch_a = A_ROWS ? BLOCK_M + APART : BLOCK_K + APART, pitch_b = B_ROWS ? BLOCK_N + APART : BLOCK_K + APART;
    const u32 of_warp_m = warp / 2 * 32, of_warp_n = warp % 2 * 32;
    float c[2][4][4];
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) c[i][j][k] = 0.0f;
    Eight next_a[2], next_b;
    // What is beyond the end of a part is another block's.
    Stored of_a = a, of_b = b;
    if (A_ROWS) of_a.rows = end;
    else of_a.columns = end;
    if (B_ROWS) of_b.rows = end;
    else of_b.columns = end;
    // Eights of A: 512, of B: 256.
    const u32 row_a = A_ROWS ? thread / 16 : thread / 4, column_a = A_ROWS ? thread % 16 * 8 : thread % 4 * 8;
    const u32 more_a = A_ROWS ? 16 : 64;
    const u32 row_b = B_ROWS ? thread / 8 : thread / 4, column_b = B_ROWS ? thread % 8 * 8 : thread % 4 * 8;
    u32 buffer = 0;
    for (u32 k = start;; k += BLOCK_K) {
        if (k < end) {
            for (int i = 0; i < 2; i++) {
                u32 row = row_a + i * more_a;
                fetch(of_a, A_ROWS ? k + row : m0 + row, A_ROWS ? m0 + column_a : k + column_a, next_a[i]);
            }
            fetch(of_b, B_ROWS ? k + row_b : n0 + row_b, B_ROWS ? n0 + column_b : k + column_b, next_b);
        }
        if (k != start) {
            const u16 *at_a = slices + (buffer ^ 1) * SLICE, *at_b = at_a + PLANES * PLANE_A;
#pragma unroll
            for (int s = 0; s < BLOCK_K; s += 16) {
                Left left[2];
                Right right[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    u32 m = of_warp_m + i * 16, n = of_warp_n + i * 16;
                    if (A_ROWS) load_left_transposed(left[i], at_a + s * pitch_a + m, pitch_a, PLANE_A, lane);
                    else load_left(left[i], at_a + m * pitch_a + s, pitch_a, PLANE_A, lane);
                    if (B_ROWS) load_right_transposed(right[i], at_b + s * pitch_b + n, pitch_b, PLANE_B, lane);
                    else load_right(right[i], at_b + n * pitch_b + s, pitch_b, PLANE_B, lane);
                }
#pragma unroll
                for (int i = 0; i < 2; i++)
#pragma unroll
                    for (int j = 0; j < 2; j++) multiply(c[i][2 * j], c[i][2 * j + 1], left[i], right[j]);
            }
        }
        if (k >= end) break;
        u16 *to_a = slices + buffer * SLICE, *to_b = to_a + PLANES * PLANE_A;
        for (int i = 0; i < 2; i++) keep(next_a[i], to_a + (row_a + i * more_a) * pitch_a + column_a, PLANE_A);
        keep(next_b, to_b + row_b * pitch_b + column_b, PLANE_B);
        buffer ^= 1;
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float sum[2] = {c[i][j][2 * half], c[i][j][2 * half + 1]};
                u32 row = m0 + of_warp_m + i * 16 + lane / 4 + half * 8;
                finish<KIND>(t, row, n0 + of_warp_n + j * 8 + lane % 4 * 2, sum);
            }
}

// y = x W^T + b. `w_at`: of the weight's rows the first column that is taken.
#define LINEAR(name, KIND)                                                                                              \
    extern "C" __global__ void __launch_bounds__(256)                                                                   \
    name(const Real *x, u32 x_stride, const Real *w, u32 w_stride, u32 w_at, u32 rows, u32 inputs, u32 outputs,          \
         const float *bias, void *y, u32 y_stride, const Real *first, const Real *second, Real *inner, u32 seed_first,   \
         u32 seed_second, float rate) {                                                                                 \
        const Stored a = {x, x_stride, rows, inputs, NONE}, b = {w + w_at, w_stride, outputs, inputs, NONE};             \
        const Target t = {y, y_stride, rows, outputs, bias, first, second, inner, {seed_first, seed_second, rate}};      \
        product<false, false, KIND>(a, b, t, blockIdx.y * BLOCK_M, blockIdx.x * BLOCK_N, 0, inputs);                    \
    }

LINEAR(linear_plain, PLAIN)
LINEAR(linear_relu, RELU)
LINEAR(linear_gate, GATE)
LINEAR(linear_logits, LOGITS)

// dx = dy W; `first`: what the ReLU and its dropout gave, whose gradient dx then is.
#define INPUT_GRADIENT(name, KIND)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                                                   \
    name(const Real *dy, u32 dy_stride, const Real *w, u32 w_stride, u32 w_at, u32 rows, u32 inputs, u32 outputs,        \
         Real *dx, u32 dx_stride, const Real *first, float rate) {                                                      \
        const Stored a = {dy, dy_stride, rows, outputs, NONE}, b = {w + w_at, w_stride, outputs, inputs, NONE};          \
        const Target t = {dx, dx_stride, rows, inputs, 0, first, 0, 0, {0, 0, rate}};                                   \
        product<false, true, KIND>(a, b, t, blockIdx.y * BLOCK_M, blockIdx.x * BLOCK_N, 0, outputs);                    \
    }

INPUT_GRADIENT(input_gradient, PLAIN)
INPUT_GRADIENT(input_gradient_add, ADD)
INPUT_GRADIENT(input_gradient_relu, MASK)

// Parts of [dW, db], outputs x (inputs + 1), each over `share` rows, one after another. `ones`: whether there is db.
extern "C" __global__ void __launch_bounds__(256)
weight_gradient(const Real *dy, u32 dy_stride, const Real *x, u32 x_stride, u32 rows, u32 inputs, u32 outputs, u32 share,
                u32 ones, float *parts) {
    const u32 columns = inputs + ones, tiles = (columns + BLOCK_N - 1) / BLOCK_N;
    const u32 start = blockIdx.y * share, end = start + share < rows ? start + share : rows;
    const Stored a = {dy, dy_stride, rows, outputs, NONE}, b = {x, x_stride, rows, inputs, ones ? inputs : NONE};
    float *part = parts + (size_t)blockIdx.y * outputs * columns;
    const Target t = {part, columns, outputs, columns, 0, 0, 0, 0, {0, 0, 0.0f}};
    product<true, true, PART>(a, b, t, blockIdx.x / tiles * BLOCK_M, blockIdx.x % tiles * BLOCK_N, start, end);
}

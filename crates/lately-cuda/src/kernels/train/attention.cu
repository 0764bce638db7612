// Attention within segments, forward and backward: a block for one head of one segment, a warp for 16 of its tokens at a
// time, logits and probabilities never in memory (Dao et al. 2022). A row's largest logit and sum are kept as one number,
// from which the backward makes its probabilities again.
//
// The backward goes over the logits twice, as no two warps may add to one sum: once by queries for their own gradients, once
// by keys for those of keys and values, with every product transposed. With P the probabilities, M the dropout and
// o = sum_j P_j M_j v_j:   d_logit_j = P_j (M_j do.v_j - do.o).
//
// In the first layer queries, keys and values are a part of the token (a row of `qkv` by `gather`) plus one of its
// segment's candidate (`own`).

#if WIDTH > 0

#define HEAD (WIDTH / HEADS)
#define TILES ((HEAD + 15) / 16)
#define PITCH (TILES * 16 + 8)

struct Qkv {
    const Real *rows;
    // Null where there is none.
    const Real *own;
    const u32 *gather;
    u32 stride;
};

// A head's columns of one part (queries 0, keys 1, values 2) of a segment's tokens, 0 beyond them.
DEVICE void load_part(const Qkv &q, u32 part, u32 head, u32 segment, u32 first, u32 tokens, u32 padded, u16 *to, u32 apart) {
    const u32 at = part * WIDTH + head * HEAD;
    for (u32 i = threadIdx.x; i < padded * TILES * 8; i += blockDim.x) {
        u32 row = i / (TILES * 8), column = i % (TILES * 8) * 2;
        Two x = {0.0f, 0.0f};
        if (row < tokens && column < HEAD) {
            const Real *from = q.rows + (size_t)(q.gather ? q.gather[first + row] : first + row) * q.stride + at + column;
            const Real *more = q.own ? q.own + (size_t)segment * q.stride + at + column : 0;
#if HEAD % 2 == 0 && WIDTH % 2 == 0
            x = load_two(from);
            if (more) {
                Two y = load_two(more);
                x = Two{x.first + y.first, x.second + y.second};
            }
#else
            x.first = value(from[0]) + (more ? value(more[0]) : 0.0f);
            if (column + 1 < HEAD) x.second = value(from[1]) + (more ? value(more[1]) : 0.0f);
#endif
        }
#pragma unroll
        for (int p = 0; p < PLANES; p++) *(u32 *)(to + p * apart + row * PITCH + column) = plane(x.first, x.second, p);
    }
}

// The same of a matrix of tokens x width.
DEVICE void load_rows(const Real *rows, u32 stride, u32 head, u32 first, u32 tokens, u32 padded, u16 *to, u32 apart) {
    const Qkv q = {rows, 0, 0, stride};
    load_part(q, 0, head, 0, first, tokens, padded, to, apart);
}

typedef float Sums[2 * TILES][4];

DEVICE void clear(Sums &x) {
#pragma unroll
    for (int n = 0; n < 2 * TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[n][i] = 0.0f;
}

// 16 x 16 logits of the factors' rows (in registers) and 16 rows in shared memory.
DEVICE void logits_of(const Left (&left)[TILES], const u16 *rows, u32 apart, u32 lane, float (&c)[2][4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) c[0][i] = c[1][i] = 0.0f;
#pragma unroll
    for (int f = 0; f < TILES; f++) {
        Right right;
        load_right(right, rows + f * 16, PITCH, apart, lane);
        multiply(c[0], c[1], left[f], right);
    }
}

// sums += c x (16 rows in shared memory).
DEVICE void add_rows(Sums &sums, const float (&c)[2][4], const u16 *rows, u32 apart, u32 lane) {
    Left left;
    to_left(left, c[0], c[1]);
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        Right right;
        load_right_transposed(right, rows + n * 16, PITCH, apart, lane);
        multiply(sums[2 * n], sums[2 * n + 1], left, right);
    }
}

// Writes a head's columns of 16 rows, times a factor for rows g and g + 8.
DEVICE void put(const Sums &sums, const float (&times)[2], Real *out, u32 stride, u32 row, u32 end, u32 lane) {
#pragma unroll
    for (int n = 0; n < 2 * TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u32 r = row + lane / 4 + i / 2 * 8, column = n * 8 + lane % 4 * 2 + i % 2;
            if (r < end && column < HEAD) out[(size_t)r * stride + column] = real(sums[n][i] * times[i / 2]);
        }
}

DEVICE float scale() { return rsqrtf((float)HEAD); }

// Of the probability of a query's and a key's place in the segment.
DEVICE float kept(const Dropout &d, u32 head, u32 query, u32 key) {
    return factor(d, (query * HEADS + head) * LENGTH + key);
}

// `context`: tokens x width. `largest`: heads x tokens, of each row its largest logit plus the logarithm of its sum.
extern "C" __global__ void __launch_bounds__(256) attention(const Real *rows, const Real *own, const u32 *gather, u32 stride, const u32 *offsets,
                                     u32 all, Real *context, u32 context_stride, float *largest, u32 seed_first,
                                     u32 seed_second, float rate) {
    SHARED(shared);
    const u32 segment = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 first = offsets[segment], tokens = offsets[segment + 1] - first, tiles = (tokens + 15) / 16;
    const u32 padded = tiles * 16, matrix = padded * PITCH;
    const Qkv q = {rows, own, gather, stride};
    const Dropout dropout = {seed_first, seed_second, rate};
    u16 *queries = (u16 *)shared, *keys = queries + PLANES * matrix, *values = keys + PLANES * matrix;
    load_part(q, 0, head, segment, first, tokens, padded, queries, matrix);
    load_part(q, 1, head, segment, first, tokens, padded, keys, matrix);
    load_part(q, 2, head, segment, first, tokens, padded, values, matrix);
    __syncthreads();
    for (u32 tile = warp; tile < tiles; tile += blockDim.x / 32) {
        Left query[TILES];
#pragma unroll
        for (int f = 0; f < TILES; f++) load_left(query[f], queries + tile * 16 * PITCH + f * 16, PITCH, matrix, lane);
        float most[2] = {MINUS_INFINITY, MINUS_INFINITY}, sum[2] = {0.0f, 0.0f};
        Sums sums;
        clear(sums);
        for (u32 k = 0; k < tiles; k++) {
            float c[2][4];
            logits_of(query, keys + k * 16 * PITCH, matrix, lane, c);
            float rescale[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float of_tile = MINUS_INFINITY;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    u32 key = k * 16 + i / 2 * 8 + lane % 4 * 2 + i % 2;
                    float &x = c[i / 2][half * 2 + i % 2];
                    x = key < tokens ? x * scale() : MINUS_INFINITY;
                    of_tile = fmaxf(of_tile, x);
                }
                float now = fmaxf(most[half], quad_max(of_tile)); // every tile has an open key
                rescale[half] = exponential(most[half] - now);
                most[half] = now;
                float more = 0.0f;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float &x = c[i / 2][half * 2 + i % 2];
                    x = exponential(x - now);
                    more += x;
                    u32 row = tile * 16 + lane / 4 + half * 8, key = k * 16 + i / 2 * 8 + lane % 4 * 2 + i % 2;
                    x *= kept(dropout, head, first + row, key);
                }
                sum[half] = sum[half] * rescale[half] + more;
            }
#pragma unroll
            for (int n = 0; n < 2 * TILES; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) sums[n][i] *= rescale[i / 2];
            add_rows(sums, c, values + k * 16 * PITCH, matrix, lane);
        }
        float times[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = quad_sum(sum[half]);
            times[half] = 1.0f / total;
            u32 row = tile * 16 + lane / 4 + half * 8;
            if (lane % 4 == 0 && row < tokens) largest[(size_t)head * all + first + row] = most[half] + logf(total);
        }
        put(sums, times, context + head * HEAD, context_stride, first + tile * 16, first + tokens, lane);
    }
}

// From `d_context` to `d_qkv`, tokens x 3 width.
extern "C" __global__ void __launch_bounds__(256) attention_backward(const Real *rows, const Real *own, const u32 *gather, u32 stride,
                                              const u32 *offsets, u32 all, const Real *context, const Real *d_context,
                                              u32 context_stride, const float *largest, Real *d_qkv, u32 d_stride,
                                              u32 seed_first, u32 seed_second, float rate) {
    SHARED(shared);
    const u32 segment = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 first = offsets[segment], tokens = offsets[segment + 1] - first, tiles = (tokens + 15) / 16;
    const u32 padded = tiles * 16, matrix = padded * PITCH, warps = blockDim.x / 32;
    const Qkv q = {rows, own, gather, stride};
    const Dropout dropout = {seed_first, seed_second, rate};
    u16 *queries = (u16 *)shared, *keys = queries + PLANES * matrix, *values = keys + PLANES * matrix;
    u16 *d_out = values + PLANES * matrix;
    float *row_largest = (float *)(d_out + PLANES * matrix), *row_product = row_largest + padded;
    load_part(q, 0, head, segment, first, tokens, padded, queries, matrix);
    load_part(q, 1, head, segment, first, tokens, padded, keys, matrix);
    load_part(q, 2, head, segment, first, tokens, padded, values, matrix);
    load_rows(d_context, context_stride, head, first, tokens, padded, d_out, matrix);
    for (u32 row = warp; row < padded; row += warps) {
        float product = 0.0f;
        const size_t at = (size_t)(first + row) * context_stride + head * HEAD;
        if (row < tokens)
            for (u32 i = lane; i < HEAD; i += 32) product += value(context[at + i]) * value(d_context[at + i]);
        product = warp_sum(product);
        if (lane == 0) {
            row_product[row] = product;
            row_largest[row] = row < tokens ? largest[(size_t)head * all + first + row] : 0.0f;
        }
    }
    __syncthreads();
    const float times[2] = {scale(), scale()}, once[2] = {1.0f, 1.0f};
    Real *out = d_qkv + head * HEAD;
    for (u32 tile = warp; tile < tiles; tile += warps) {
        Left own_rows[TILES], own_d[TILES];
        Sums sums;
        // By queries.
#pragma unroll
        for (int f = 0; f < TILES; f++) {
            load_left(own_rows[f], queries + tile * 16 * PITCH + f * 16, PITCH, matrix, lane);
            load_left(own_d[f], d_out + tile * 16 * PITCH + f * 16, PITCH, matrix, lane);
        }
        clear(sums);
        for (u32 k = 0; k < tiles; k++) {
            float c[2][4], d[2][4];
            logits_of(own_rows, keys + k * 16 * PITCH, matrix, lane, c);
            logits_of(own_d, values + k * 16 * PITCH, matrix, lane, d);
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    u32 row = tile * 16 + lane / 4 + i / 2 * 8, key = k * 16 + n * 8 + lane % 4 * 2 + i % 2;
                    float p = key < tokens ? exponential(c[n][i] * scale() - row_largest[row]) : 0.0f;
                    c[n][i] = p * (d[n][i] * kept(dropout, head, first + row, key) - row_product[row]);
                }
            add_rows(sums, c, keys + k * 16 * PITCH, matrix, lane);
        }
        put(sums, times, out, d_stride, first + tile * 16, first + tokens, lane);
    }
    for (u32 tile = warp; tile < tiles; tile += warps) {
        Left own_keys[TILES], own_values[TILES];
        Sums of_keys, of_values;
        // By keys: rows are keys, columns queries.
#pragma unroll
        for (int f = 0; f < TILES; f++) {
            load_left(own_keys[f], keys + tile * 16 * PITCH + f * 16, PITCH, matrix, lane);
            load_left(own_values[f], values + tile * 16 * PITCH + f * 16, PITCH, matrix, lane);
        }
        clear(of_keys);
        clear(of_values);
        for (u32 k = 0; k < tiles; k++) {
            float c[2][4], d[2][4];
            logits_of(own_keys, queries + k * 16 * PITCH, matrix, lane, c);
            logits_of(own_values, d_out + k * 16 * PITCH, matrix, lane, d);
#pragma unroll
            for (int n = 0; n < 2; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    u32 key = tile * 16 + lane / 4 + i / 2 * 8, row = k * 16 + n * 8 + lane % 4 * 2 + i % 2;
                    float p = row < tokens ? exponential(c[n][i] * scale() - row_largest[row]) : 0.0f;
                    float m = kept(dropout, head, first + row, key);
                    c[n][i] = p * m;
                    d[n][i] = p * (d[n][i] * m - row_product[row]);
                }
            add_rows(of_values, c, d_out + k * 16 * PITCH, matrix, lane);
            add_rows(of_keys, d, queries + k * 16 * PITCH, matrix, lane);
        }
        put(of_keys, times, out + WIDTH, d_stride, first + tile * 16, first + tokens, lane);
        put(of_values, once, out + 2 * WIDTH, d_stride, first + tile * 16, first + tokens, lane);
    }
}

#endif

// Rows of matrices: from the host's numbers, from trained tables and from each other, and the ways back of their gradients,
// which are added up in a fixed order.

// Numbers of the host into a block of columns.
extern "C" __global__ void place(const float *from, u32 columns, u32 rows, Real *out, u32 stride, u32 offset) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)rows * columns) return;
    out[i / columns * stride + offset + i % columns] = real(from[i]);
}

// Rows of a trained table, averaged over slots (index 0 is an empty one; where all are, row 0 stands), into a block of
// columns, or added to it.
extern "C" __global__ void embed(const float *table, u32 columns, const u32 *indices, u32 slots, u32 rows, Real *out,
                                 u32 stride, u32 offset, u32 add) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)rows * columns) return;
    const u32 *index = indices + i / columns * slots;
    const u32 column = i % columns;
    float sum = 0.0f, count = 0.0f;
    for (u32 s = 0; s < slots; s++)
        if (index[s] != 0) {
            sum += table[(size_t)index[s] * columns + column];
            count += 1.0f;
        }
    sum = count > 0.0f ? sum / count : table[column];
    Real *to = out + i / columns * stride + offset + column;
    *to = real(add ? value(*to) + sum : sum);
}

// Encoder tokens: [token ; candidate].
extern "C" __global__ void expand(const Real *token, u32 token_stride, u32 token_columns, const Real *candidate,
                                  u32 candidate_stride, u32 candidate_columns, const u32 *gather, const u32 *segment,
                                  u32 tokens, Real *out, u32 stride) {
    const u32 columns = token_columns + candidate_columns;
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)tokens * columns) return;
    const u32 row = i / columns, column = i % columns;
    out[(size_t)row * stride + column] =
        column < token_columns ? token[(size_t)gather[row] * token_stride + column]
                               : candidate[(size_t)segment[row] * candidate_stride + column - token_columns];
}

// Sums of rows: out[rows[u]] = sum of share[i] * in[from[i]], i from starts[u] to starts[u + 1]; without `rows` u itself,
// without `from` i itself, without `share` 1. A block a u and 32 columns, whose warps take turns at the entries.
// Shared memory: a number a thread.
template <bool TABLE>
DEVICE void collect(const u32 *rows, const u32 *starts, const u32 *from, const float *share, const Real *in, u32 in_stride,
                    u32 in_offset, u32 columns, void *out, u32 out_stride, u32 *touched) {
    SHARED(shared);
    float *sums = (float *)shared;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const u32 u = blockIdx.x, column = blockIdx.y * 32 + lane, end = starts[u + 1];
    float sum = 0.0f;
    if (column < columns)
        for (u32 i = starts[u] + warp; i < end; i += warps) {
            float x = value(in[(size_t)(from ? from[i] : i) * in_stride + in_offset + column]);
            sum += share ? x * share[i] : x;
        }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp > 0 || column >= columns) return;
    for (u32 w = 1; w < warps; w++) sum += sums[w * 32 + lane];
    const u32 row = rows ? rows[u] : u;
    const size_t at = (size_t)row * out_stride + column;
    if (TABLE) {
        ((float *)out)[at] += sum;
        if (touched && column == 0) touched[row] = 1;
    } else {
        ((Real *)out)[at] = real(sum);
    }
}

// Into rows of a matrix.
extern "C" __global__ void collect_rows(const u32 *rows, const u32 *starts, const u32 *from, const Real *in, u32 in_stride,
                                        u32 in_offset, u32 columns, Real *out, u32 out_stride) {
    collect<false>(rows, starts, from, 0, in, in_stride, in_offset, columns, out, out_stride, 0);
}

// Added to rows of a table's gradient, which are noted as touched.
extern "C" __global__ void collect_table(const u32 *rows, const u32 *starts, const u32 *from, const float *share,
                                         const Real *in, u32 in_stride, u32 in_offset, u32 columns, float *out,
                                         u32 *touched) {
    collect<true>(rows, starts, from, share, in, in_stride, in_offset, columns, out, columns, touched);
}

// A block of columns, or added to it.
extern "C" __global__ void copy_columns(const Real *from, u32 from_stride, u32 from_offset, u32 columns, u32 rows, Real *out,
                                        u32 stride, u32 offset, u32 add) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)rows * columns) return;
    float x = value(from[i / columns * from_stride + from_offset + i % columns]);
    Real *to = out + i / columns * stride + offset + i % columns;
    *to = real(add ? value(*to) + x : x);
}

// A segment's columns of every row that it has.
extern "C" __global__ void spread(const Real *from, u32 from_stride, const u32 *source, u32 columns, u32 rows, Real *out,
                                  u32 stride) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)rows * columns) return;
    const u32 row = i / columns, column = i % columns;
    out[(size_t)row * stride + column] = from[(size_t)source[row] * from_stride + column];
}

#if WIDTH > 0

// From a segment's encoded tokens to [room for the map of the maximum ; first K tokens]; a block a segment. Columns of the
// maximum before its map, and the token that each is of.
extern "C" __global__ void outputs(const Real *stream, u32 stride, const u32 *offsets, Real *pooled, u32 *argmax,
                                   Real *sequence, u32 sequence_stride) {
    const u32 segment = blockIdx.x, first = offsets[segment], end = offsets[segment + 1];
    for (u32 column = threadIdx.x; column < WIDTH; column += blockDim.x) {
#if POOL
        float most = MINUS_INFINITY;
        u32 at = NONE;
        for (u32 e = first; e < end; e++) {
            float x = value(stream[(size_t)e * stride + column]);
            if (x > most || at == NONE) {
                most = x;
                at = e;
            }
        }
        pooled[(size_t)segment * stride + column] = real(at == NONE ? 0.0f : most);
        argmax[(size_t)segment * WIDTH + column] = at;
#endif
        for (u32 k = 0; k < FIRST_K; k++)
            sequence[(size_t)segment * sequence_stride + (POOL + k) * WIDTH + column] =
                first + k < end ? stream[(size_t)(first + k) * stride + column] : real(0.0f);
    }
}

// A segment without tokens has zeros where the map of the maximum stands.
extern "C" __global__ void clear_empty(const u32 *offsets, Real *sequence, u32 sequence_stride) {
    const u32 segment = blockIdx.x;
    if (offsets[segment] != offsets[segment + 1]) return;
    for (u32 column = threadIdx.x; column < WIDTH; column += blockDim.x)
        sequence[(size_t)segment * sequence_stride + column] = real(0.0f);
}

// Gradient of `outputs` for the stream.
extern "C" __global__ void outputs_backward(const Real *d_sequence, u32 sequence_stride, const Real *d_pooled,
                                            const u32 *argmax, const u32 *offsets, const u32 *segment, u32 tokens,
                                            Real *d_stream, u32 stride) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)tokens * WIDTH) return;
    const u32 e = i / WIDTH, column = i % WIDTH, s = segment[e], k = e - offsets[s];
    float sum = 0.0f;
    if (k < FIRST_K) sum = value(d_sequence[(size_t)s * sequence_stride + (POOL + k) * WIDTH + column]);
#if POOL
    if (argmax[(size_t)s * WIDTH + column] == e) sum += value(d_pooled[(size_t)s * stride + column]);
#endif
    d_stream[(size_t)e * stride + column] = real(sum);
}

#endif

// Gradients of a cross layer's gate x0 * inner + x: that of `inner`, in its place, and of x0, added unless it is the first.
extern "C" __global__ void gate_backward(const Real *x0, Real *inner, const Real *dy, Real *dx0, u32 columns, u32 rows,
                                         u32 stride, u32 is_first) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)rows * columns) return;
    const size_t at = i / columns * stride + i % columns;
    const float d = value(dy[at]), part = d * value(inner[at]);
    inner[at] = real(d * value(x0[at]));
    dx0[at] = real(is_first ? part : value(dx0[at]) + part);
}

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

// For each encoder token its segment, and its row of the tokens' matrix; a block a segment. `candidates`: the first row of
// appended candidates, which begin their segments; NONE for none.
extern "C" __global__ void number_tokens(const u32 *offsets, const u32 *source, u32 candidates, u32 *segment, u32 *gather) {
    const u32 s = blockIdx.x, first = offsets[s], end = offsets[s + 1], appended = candidates == NONE ? 0 : 1;
    for (u32 e = first + threadIdx.x; e < end; e += blockDim.x) {
        u32 place = e - first;
        segment[e] = s;
        gather[e] = place < appended ? candidates + s : source[s] + place - appended;
    }
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

// What a block adds up: entries of a list, see below.
struct Entries {
    const u32 *from, *starts;
    // Of a row of the tokens' matrix: the first of its segments, and which of their tokens it is; else null.
    const u32 *first, *place;
};

DEVICE u32 entry(const Entries &e, u32 u, u32 i) {
    if (e.first) return e.starts[e.first[u] + i] + e.place[u];
    return e.from ? e.from[e.starts[u] + i] : e.starts[u] + i;
}

// The sum over a block's entries of one of its 32 columns, by warp 0. The warps take turns at the entries.
// Shared memory: a number a thread.
DEVICE float sum_of(const Entries &e, u32 u, u32 count, const float *share, const Real *in, u32 stride, u32 column,
                    bool there) {
    SHARED(shared);
    float *sums = (float *)shared;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    float sum = 0.0f;
    if (there)
        for (u32 i = warp; i < count; i += warps) {
            float x = value(in[(size_t)entry(e, u, i) * stride + column]);
            sum += share ? x * share[e.starts[u] + i] : x;
        }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (warp == 0)
        for (u32 w = 1; w < warps; w++) sum += sums[w * 32 + lane];
    return sum;
}

// Into a matrix's rows: row u is the sum of the rows from starts[u] to starts[u + 1].
extern "C" __global__ void collect_rows(const u32 *starts, const Real *in, u32 in_stride, u32 columns, Real *out,
                                        u32 out_stride) {
    const u32 u = blockIdx.x, column = blockIdx.y * 32 + threadIdx.x % 32;
    const Entries e = {0, starts, 0, 0};
    float sum = sum_of(e, u, starts[u + 1] - starts[u], 0, in, in_stride, column, column < columns);
    if (threadIdx.x < 32 && column < columns) out[(size_t)u * out_stride + column] = real(sum);
}

// From encoder tokens to rows of the tokens' matrix.
extern "C" __global__ void collect_tokens(const u32 *offsets, const u32 *first, const u32 *count, const u32 *place,
                                          const Real *in, u32 in_stride, u32 columns, Real *out, u32 out_stride) {
    const u32 u = blockIdx.x, column = blockIdx.y * 32 + threadIdx.x % 32;
    const Entries e = {0, offsets, first, place};
    float sum = sum_of(e, u, count[u], 0, in, in_stride, column, column < columns);
    if (threadIdx.x < 32 && column < columns) out[(size_t)u * out_stride + column] = real(sum);
}

// Added to rows of a table's gradient, which are noted as touched: row rows[u] gets the sum of share[i] in[from[i]], i from
// starts[u] to starts[u + 1]; without `share` of in[from[i]].
extern "C" __global__ void collect_table(const u32 *rows, const u32 *starts, const u32 *from, const float *share,
                                         const Real *in, u32 in_stride, u32 in_offset, u32 columns, float *out,
                                         float *touched) {
    const u32 u = blockIdx.x, column = blockIdx.y * 32 + threadIdx.x % 32, row = rows[u];
    const Entries e = {from, starts, 0, 0};
    float sum = sum_of(e, u, starts[u + 1] - starts[u], share, in + in_offset, in_stride, column, column < columns);
    if (threadIdx.x >= 32 || column >= columns) return;
    out[(size_t)row * columns + column] += sum;
    if (touched && column == 0) touched[row] = 1.0f;
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

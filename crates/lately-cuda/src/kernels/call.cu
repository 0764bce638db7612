// A call of serving: its header, and where its rows' items are (layout.rs writes both, items.rs decides which items come
// along).

#define INPUT_TILES (CEIL16(INPUTS) / 16)

// Words of the header.
enum { ROWS, REQUESTS, STAGED, AT_ROWS, AT_ITEMS, AT_REQUESTS, AT_COLUMNS, AT_TOKENS, AT_OPEN, AT_KINDS, AT_SLOTS, AT_STAGED,
       AT_VALUES, AT_LOGITS, AT_EXPONENTIALS, AT_CANDIDATE_KEYS, AT_TOKEN_ITEMS, AT_LENGTHS, AT_SUMS };
// Of a row's item: that it is among the call's staged ones.
#define IS_STAGED 0x80000000u

// A row's item, CANDIDATE numbers in f32 and its columns in bfloat16: in its slot of the table, or, where it was not there
// when the call began, in the call's input.
DEVICE const u32 *item_of(const u32 *input, const u32 *table, u32 row) {
    u32 at = input[input[AT_ITEMS] + row];
    if (at & IS_STAGED) return input + input[AT_STAGED] + (size_t)(at - IS_STAGED) * ITEM_WORDS;
    return table + (size_t)at * ITEM_WORDS;
}

/* fields.h - the fields of a segment, for those who write over them: mutate.c. */
#ifndef SANITIZE_FIELDS_H
#define SANITIZE_FIELDS_H

#include "fuzz.h"

struct field {
    const char *name;
    uint32_t offset, size;
    uint64_t (*special)(uint64_t index); /* values that mean something here, or NULL */
};

/* Those of one part of a segment. */
struct fields {
    const struct field *all;
    uint32_t count;
};

extern const struct fields header_fields, living_fields, cell_fields, gate_fields, vcpu_fields, sync_fields, node_fields, entry_fields, channel_fields;

uint64_t cell_word(uint64_t index, uint32_t offset);
uint64_t some_cell(void); /* the cell that matters now, or any */
uint64_t a_ticket(uint64_t index);
uint64_t an_id(uint64_t index);

#endif

/* patch/choices.h - what each op can be, as one table. */
#ifndef PLK_PATCH_CHOICES_H
#define PLK_PATCH_CHOICES_H

#include <pylocks.h>

#define PLK_SITE_BYTES 6

enum plk_choice_kind { PLK_KIND_NOP, PLK_KIND_INLINE, PLK_KIND_CALL };

struct plk_choice {
    enum plk_op op;
    const char *name;
    const char *meaning;
    enum plk_choice_kind kind;
    unsigned char bytes[PLK_SITE_BYTES]; /* of NOP and INLINE */
    plk_op_fn fn;                        /* the call, or what the bytes do, as a function */
    uint32_t protocol;                   /* needs it; 0: goes with either */
    int sound;                           /* 0: broken on purpose */
    int (*available)(void);              /* NULL: everywhere */
    plk_op_fn quick[PLK_PLACE_COUNT];    /* at a site of the uncontended path: plk_quick_entry; NULL: a nop */
};

/* What a site of the op at that place becomes, and the call's function if it is one. */
enum plk_choice_kind plk_choice_at_place(const struct plk_choice *c, uint8_t place, plk_op_fn *fn);

uint32_t plk_choice_count(void);
const struct plk_choice *plk_choice_at(uint32_t index);
int plk_choice_available(uint32_t index);

/* The table as Python reads it. */
struct plk_choice_view {
    const char *op, *name, *meaning;
    uint32_t op_index, kind, protocol;
    int sound, available;
};
uint32_t plk_op_count(void);
const char *plk_op_name(uint32_t op);
int plk_choice_view(uint32_t index, struct plk_choice_view *view);

#endif

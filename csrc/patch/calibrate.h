/* patch/calibrate.h - the cost of one turn of a spin on this machine. */
#ifndef PLK_PATCH_CALIBRATE_H
#define PLK_PATCH_CALIBRATE_H

/* ns of one cpu_relax turn with its look at head, as patched now. */
double plk_calibrate(void);

/* Register the core's own sites; 0 or -ENOMEM. */
int plk_core_register(void);

/* Where modules find the core: a const struct plk_api. */
uint64_t plk_api_address(void);

#endif

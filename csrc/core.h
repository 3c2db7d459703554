/* core.h - all that pylocks._core shows to Python through cffi. */
#ifndef PLK_CORE_H
#define PLK_CORE_H

#include "hv/attach.h"
#include "hv/barrier.h"
#include "hv/deadlock.h"
#include "hv/copy.h"
#include "hv/directory.h"
#include "hv/events.h"
#include "hv/futex.h"
#include "hv/guard.h"
#include "hv/monitor.h"
#include "hv/park.h"
#include "hv/preempted.h"
#include "hv/recovery.h"
#include "hv/service.h"
#include "hv/vcpu.h"
#include "hv/view.h"
#include "recover/life.h"
#include "patch/calibrate.h"
#include "patch/patch.h"
#include "slow/slow.h"
#include "sync/sync.h"

#endif

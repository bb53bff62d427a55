/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker that polls two rings and sleeps on one interrupt.
 *
 * It polls all rings. When none has work it arms those that are not armed: clears the mask, fences,
 * looks once more. If all are armed it sleeps. A ring that had work is disarmed.
 *
 * Models WorkerLoop.pollAll, armAll and sleep (Sources/Platform/WorkerLoop.swift) over the ring's
 * handshake (interrupt-mask.pml), with a value that gives packets back when it likes.
 *
 *   KERNEL_MASKS    Linux before 6.18 masks the channel on each interrupt, before it wakes user space.
 *                   The worker clears the masks again when it wakes (UIOChannel.takeInterrupts in
 *                   Sources/VMBusUIO/UIOChannel.swift), and polls.
 *
 * Holds: all packets of both rings are received. Must fail:
 *   NO_FENCE=1      producer: index published, mask and consumer's index read
 *   NO_FENCE=2      worker: mask cleared, producer's index read
 *   NO_FENCE=3      worker, KERNEL_MASKS: masks cleared after an interrupt, producer's index read
 *   NO_SECOND_LOOK  a ring is armed without another look
 *   KEPT_ARMED      a ring that had something to do when it was armed counts as armed
 *   MASK_LEFT       KERNEL_MASKS, and the worker does not clear the masks when it wakes
 */

#define PACKETS(ring) (2 - ring)
#define RINGS 2

#define WORDS 6
#define PRODUCER_INDEX(ring) (ring)
#define CONSUMER_INDEX(ring) (2 + ring)
#define INTERRUPT_MASK(ring) (4 + ring)

#define PROCESSORS 3

#include "memory.pml"

bool interrupt;

#ifdef KERNEL_MASKS
bool line[RINGS];
#define RAISE(ring) SIGNAL(line[ring])

active proctype Kernel() {
end:
  do
  :: SLEEP(line[0]) -> memory[INTERRUPT_MASK(0)] = 1; interrupt = true
  :: SLEEP(line[1]) -> memory[INTERRUPT_MASK(1)] = 1; interrupt = true
  od
}
#define FIRST_PRODUCER (PROCESSORS + 1)
#else
#define RAISE(ring) SIGNAL(interrupt)
#define FIRST_PRODUCER PROCESSORS
#endif

active [RINGS] proctype Producer() {
  byte me = _pid - FIRST_PRODUCER;
  byte next;
  do
  :: next == PACKETS(me) -> break
  :: next < PACKETS(me) ->
    next = next + 1;
    STORE(PRODUCER_INDEX(me), next);
    FENCE(1);
    if
    :: LOAD(INTERRUPT_MASK(me)) != 0
    :: LOAD(INTERRUPT_MASK(me)) == 0 ->
      if
      :: LOAD(CONSUMER_INDEX(me)) == next - 1 -> RAISE(me)
      :: else
      fi
    fi
  od
}

inline poll(ring) {
  seen = LOAD(PRODUCER_INDEX(ring));
  if
  :: seen == next[ring]
  :: seen != next[ring] ->
    next[ring] = seen;
    has_work = true;
    if
    :: is_armed[ring] -> STORE(INTERRUPT_MASK(ring), 1); is_armed[ring] = false
    :: else
    fi
  fi;
  /* commit, or later. It counts as no work. */
  if
  :: next[ring] != committed[ring] ->
    committed[ring] = next[ring];
    STORE(CONSUMER_INDEX(ring), committed[ring])
  :: true
  fi
}

inline arm(ring) {
  if
  :: is_armed[ring]
  :: !is_armed[ring] ->
    STORE(INTERRUPT_MASK(ring), 0);
    FENCE(2);
    is_armed[ring] = true;
#ifndef NO_SECOND_LOOK
    if
    :: LOAD(PRODUCER_INDEX(ring)) != next[ring] || next[ring] != committed[ring] ->
      has_work = true;
#ifndef KEPT_ARMED
      is_armed[ring] = false;
      STORE(INTERRUPT_MASK(ring), 1)
#endif
    :: else
    fi
#endif
  fi
}

active proctype Worker() {
  byte me = RINGS;
  byte next[RINGS], committed[RINGS];
  bool is_armed[RINGS];
  byte seen;
  bool has_work;
  STORE(INTERRUPT_MASK(0), 1);
  STORE(INTERRUPT_MASK(1), 1);
  do
  :: has_work = false;
    poll(0);
    poll(1);
    if
    :: next[0] == PACKETS(0) && next[1] == PACKETS(1) -> break
    :: else
    fi;
    if
    :: has_work
    :: !has_work ->
      arm(0);
      arm(1);
      if
      :: has_work
      :: !has_work ->
        SLEEP(interrupt);
#if defined(KERNEL_MASKS) && !defined(MASK_LEFT)
        STORE(INTERRUPT_MASK(0), 0);
        STORE(INTERRUPT_MASK(1), 0);
        FENCE(3);
#endif
      fi
    fi;
    seen = 0
  od
}

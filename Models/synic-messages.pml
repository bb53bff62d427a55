/* SPDX-License-Identifier: Apache-2.0
 *
 * The message slots of two SynICs.
 *
 * A slot holds one message. A sender that finds it taken sets the message-pending flag, and looks once
 * more. The guest copies the message out, clears its type, fences, and reads the flag: if it is set,
 * it signals the end of the message (EOM), at which the sender delivers the next. As with event flags
 * (synic-events.pml) all interrupts are the paravisor's, and the guest looks into both message pages;
 * what it finds in the host's it drops, but takes.
 *
 * Models GuestSynIC.post, endOfMessage and deliver (Sources/SimulatedHost/GuestSynIC.swift), and
 * VirtualProcessor.takeMessage and BusCore.interrupted (Sources/SimulatedBus), for two pages.
 *
 * Holds: all messages are taken, once, in order. Must fail:
 *   NO_FENCE=1      guest: type cleared, flag read
 *   NO_FENCE=2      sender: flag set, type read (an atomic read-modify-write in the Swift)
 *   NO_SECOND_LOOK  the sender does not look again after it has set the flag
 *   EARLY_FLAG      the guest reads the flag before it clears the type
 *   ONE_PAGE        the paravisor's page alone is looked into
 */

#define MESSAGES 3
#define SIDES 2
#define PARAVISOR 0

#define WORDS 6
/* 0 for an empty slot. */
#define TYPE(side) (side)
#define FLAG(side) (2 + side)
#define BODY(side) (4 + side)

#define PROCESSORS 3

#include "memory.pml"

bool interrupt;
bool ended[SIDES];

/* Posts and ends of messages exclude each other: GuestSynIC.waiting is a lock. */
active [SIDES] proctype Sender() {
  byte me = _pid - PROCESSORS;
  byte posted, delivered;
end:
  do
  :: (posted < MESSAGES || ended[me]) ->
    if
    :: posted < MESSAGES -> posted = posted + 1
    :: SLEEP(ended[me])
    fi;
    /* deliver */
    if
    :: posted == delivered -> goto end
    :: else
    fi;
    if
    :: LOAD(TYPE(me)) == 0
    :: LOAD(TYPE(me)) != 0 ->
      STORE(FLAG(me), 1);
      FENCE(2);
#ifdef NO_SECOND_LOOK
      goto end;
#endif
      if
      :: LOAD(TYPE(me)) == 0
      :: LOAD(TYPE(me)) != 0 -> goto end
      fi
    fi;
    delivered = delivered + 1;
    STORE(FLAG(me), (posted != delivered));
    STORE(BODY(me), delivered);
    /* The type last: with it the slot is full. */
    STORE(TYPE(me), 1);
    SIGNAL(interrupt)
  od
}

inline take_messages(side) {
  do
  :: LOAD_OWN(TYPE(side), 0) == 0 -> break
  :: LOAD_OWN(TYPE(side), 0) != 0 ->
    taken[side] = taken[side] + 1;
    assert(LOAD(BODY(side)) == taken[side]);
#ifdef EARLY_FLAG
    is_pending = LOAD(FLAG(side));
#endif
    STORE(TYPE(side), 0);
    FENCE(1);
#ifndef EARLY_FLAG
    is_pending = LOAD(FLAG(side));
#endif
    if
    :: is_pending -> SIGNAL(ended[side])
    :: else
    fi
  od
}

active proctype Guest() {
  byte me = SIDES;
  byte taken[SIDES];
  bool is_pending;
  do
  :: taken[0] == MESSAGES && taken[1] == MESSAGES -> break
  :: else ->
    SLEEP(interrupt);
#ifndef ONE_PAGE
    take_messages(1 - PARAVISOR);
#endif
    take_messages(PARAVISOR)
  od
}

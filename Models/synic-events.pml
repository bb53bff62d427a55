/* SPDX-License-Identifier: Apache-2.0
 *
 * The event flags of two SynICs.
 *
 * With a confidential connection a virtual processor has two event flags pages: the paravisor's, in
 * encrypted memory, and the host's, in host-visible memory. Who sends on a channel sets its flag in the
 * page of its side, and has an interrupt raised if the flag was clear. All interrupts are the
 * paravisor's, also those that the host asks for: so none tells which page to look at, and the guest
 * scans both, the host's first, as Linux does. A flag is cleared before its ring is read.
 *
 * Models GuestSynIC.setEventFlag (Sources/SimulatedHost/GuestSynIC.swift) and
 * VirtualProcessor.takeInterrupt (Sources/SimulatedBus/GuestMachine.swift), for two pages. Channels 0
 * and 1 have their flags in one word of the paravisor's page, channel 2 in the host's. Rings never mask.
 *
 *   ALL_RINGS        all rings are read, not only those whose flag was set, and so flags may be cleared
 *                    by load and store instead of an exchange (takeInterrupt).
 *
 * Holds: all packets are received. Must fail:
 *   NO_FENCE=1       guest, ALL_RINGS: flags cleared, producer's index read
 *   NO_EXCHANGE      cleared by load and store, and only the rings of flags that were seen are read
 *   ONE_PAGE         the paravisor's page alone is scanned
 *   LATE_CLEAR       flags are cleared after the rings were read
 */

/* The second one may find the flag still set, and raise no interrupt. */
#define PACKETS(channel) (channel == 1 -> 1 : 2)
#define CHANNELS 3
#define HOST_CHANNEL 2

#define WORDS 5
#define PRODUCER_INDEX(channel) channel
#define PARAVISOR_FLAGS 3
#define HOST_FLAGS 4

#define PROCESSORS 4

#include "memory.pml"

bool interrupt, asked;

inline send(channel, flags, line) {
  sent = sent + 1;
  STORE(PRODUCER_INDEX(channel), sent);
  OR(flags, 1 << channel, before);
  if
  :: before & (1 << channel)
  :: else -> SIGNAL(line)
  fi;
  before = 0
}

/* The paravisor's devices, one on each channel. */
active [2] proctype Paravisor() {
  byte me = _pid - PROCESSORS;
  byte sent, before;
  do
  :: sent < PACKETS(me) -> send(me, PARAVISOR_FLAGS, interrupt)
  :: else -> break
  od
}

active proctype Host() {
  byte me = HOST_CHANNEL;
  byte sent, before;
  do
  :: sent < PACKETS(me) -> send(me, HOST_FLAGS, asked)
  :: else -> break
  od
}

/* The paravisor raises the interrupts that the host asks for. */
active proctype Proxy() {
end:
  do
  :: SLEEP(asked) -> interrupt = true
  od
}

inline clear(flags) {
#if defined(ALL_RINGS) || defined(NO_EXCHANGE)
  bits = LOAD(flags);
  if
  :: bits != 0 -> STORE(flags, 0)
  :: else
  fi;
#else
  EXCHANGE(flags, 0, bits);
#endif
  raised = raised | bits
}

inline scan() {
#ifndef ONE_PAGE
  clear(HOST_FLAGS);
#endif
  clear(PARAVISOR_FLAGS)
}

inline read_rings() {
  FENCE(1);
  channel = 0;
  do
  :: channel == CHANNELS -> break
#ifdef ALL_RINGS
  :: channel < CHANNELS -> received[channel] = LOAD(PRODUCER_INDEX(channel)); channel = channel + 1
#else
  :: channel < CHANNELS && raised & (1 << channel) ->
    received[channel] = LOAD(PRODUCER_INDEX(channel));
    channel = channel + 1
  :: channel < CHANNELS && !(raised & (1 << channel)) -> channel = channel + 1
#endif
  od
}

active proctype Guest() {
  byte me = CHANNELS;
  byte received[CHANNELS];
  byte raised, bits, channel;
  do
  :: received[0] + received[1] + received[2] == 5 -> break
  :: else ->
    d_step { raised = 0; bits = 0; channel = 0 };
    SLEEP(interrupt);
#ifdef LATE_CLEAR
    raised = LOAD(PARAVISOR_FLAGS) | LOAD(HOST_FLAGS);
    read_rings();
    scan();
#else
    scan();
    read_rings()
#endif
  od
}

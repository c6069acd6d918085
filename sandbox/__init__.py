"""Stand-ins for the payment gateways: one HTTP process that speaks their protocols, signs as they
do, keeps its own truth of the money it took, and takes a payer's controls and faults.

It shares no code with the adapters: each checks the other. `sandbox.core` tells what a gateway's
package gets and has to offer.
"""

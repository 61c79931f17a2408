"""From published decryptions of CKKS ciphertexts to the secret key, and from that to every ciphertext.

blobs.py      SEAL's and TenSEAL's bytes: parameters, ciphertexts
field.py      arithmetic modulo a prime of up to 61 bits; the number-theoretic transform in SEAL's order
slots.py      between the numbers in a ciphertext's slots and the coefficients of its polynomial
exact.py      the exact coefficients behind slots that are known up to a rounding error
secret.py     the key from two such ciphertexts; opening with it
frames.py     which frame of a message holds which values
published.py  what releases say about the plaintexts of sums, and how exactly
recovery.py   all of it on one coalition's messages
"""

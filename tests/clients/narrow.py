"""Narrows the cot1_ token on standard input by the caveats given, with pymacaroons."""
import base64
import sys

from pymacaroons import Macaroon
from pymacaroons.serializers import BinarySerializer

text = sys.stdin.read().strip()[len("cot1_"):]
m = Macaroon.deserialize(text)
for caveat in sys.argv[1:]:
    m.add_first_party_caveat(caveat)
sys.stdout.write("cot1_" + m.serialize(BinarySerializer()).rstrip("="))

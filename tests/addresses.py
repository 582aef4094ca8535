"""A device of addresses alone, for tests of what gives memory out."""


class Addresses:
    """A device of addresses alone, aligned to 16 bytes and no more."""

    name = "addresses"

    def __init__(self, capacity=1 << 40):
        self.capacity, self.next, self.given = capacity, 16, {}

    def free_bytes(self):
        return self.capacity - sum(self.given.values())

    def reserve(self, nbytes):
        pointer, self.next = self.next, self.next + -(-nbytes // 16) * 16 + 48
        self.given[pointer] = nbytes
        return pointer

    def release(self, pointer):
        del self.given[pointer]

"""Processes and threads move money around; none is made or lost."""

import multiprocessing
import threading

import ledger

import pylocks

ACCOUNTS, MONEY = 16, 1_000_000


def work(lock, accounts, first, n):
    """n transfers from account to account, by two threads."""
    book = ledger.Ledger(lock, accounts)
    threads = [
        threading.Thread(target=book.transfer, args=(first + i, (first + i + 5) % ACCOUNTS, 1, n))
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(processes=4, n=20_000):
    """Run it, and say what is there in the end."""
    lock = pylocks.TicketLock()
    accounts = multiprocessing.RawArray("q", [MONEY] * ACCOUNTS)
    children = [
        multiprocessing.Process(target=work, args=(lock, accounts, 2 * i, n)) for i in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    moved = 2 * processes * n
    print(f"{moved} transfers, {lock.ticket} acquisitions, {sum(accounts) - ACCOUNTS * MONEY} missing")


if __name__ == "__main__":
    main()

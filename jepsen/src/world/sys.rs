//! The three system calls that no crate wraps safely: binding a packet socket to one interface,
//! asking it for the kernel's segmentation header, and shutting a file system down.
#![expect(unsafe_code, reason = "three system calls without a safe wrapper; nothing else is here")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const ETH_P_ALL: u16 = 0x0003;
/// Frames carry a header in front that says how they are segmented and whether their checksum is
/// still to be filled in, so that both pass unchanged.
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// ext4: no more writes reach the disk from now on.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587D;
/// Not even the journal: the disk keeps what was flushed, as after a power cut.
const SHUTDOWN_WITHOUT_LOG_FLUSH: u32 = 2;

/// A raw socket that sees every frame arriving at one interface.
///
/// # Errors
/// Without the right to open packet sockets in this network namespace.
pub(crate) fn packet_socket(interface: u32) -> io::Result<Socket> {
    // No protocol yet: until it is bound it would see the frames of every interface.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    set_option(&socket, PACKET_VNET_HDR, 1)?;
    set_option(&socket, PACKET_IGNORE_OUTGOING, 1)?;
    // SAFETY: the closure writes a whole `sockaddr_ll`, which fits into the storage by the kernel's
    // definition of it, and sets the length to its size.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = libc::sockaddr_ll {
                sll_family: libc::AF_PACKET as libc::sa_family_t,
                sll_protocol: ETH_P_ALL.to_be(),
                sll_ifindex: interface as libc::c_int,
                sll_hatype: 0,
                sll_pkttype: 0,
                sll_halen: 0,
                sll_addr: [0; 8],
            };
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn set_option(socket: &Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a local integer of the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Cuts the power of a mounted ext4 or xfs: what was not flushed by now will not be there after the
/// next mount.
///
/// # Errors
/// Without root, or when the file system is of another kind.
pub(crate) fn cut_power(mount: &Path) -> io::Result<()> {
    let directory = File::open(mount)?;
    let how = SHUTDOWN_WITHOUT_LOG_FLUSH;
    // SAFETY: this request reads one 32-bit integer behind the pointer.
    let result = unsafe { libc::ioctl(directory.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const how) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

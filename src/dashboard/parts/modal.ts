import { onBeforeUnmount, onMounted, type ShallowRef } from 'vue';

/** Shows a dialog above everything for as long as its component is there; the focus goes back where it was. */
export function useModal(dialog: Readonly<ShallowRef<HTMLDialogElement | null>>): void {
  onMounted(() => dialog.value?.showModal());
  // An open dialog that is merely removed takes the focus with it.
  onBeforeUnmount(() => dialog.value?.close());
}
